# The internal topics, as clockwork/kafka/topics.py makes them; a test compares. Apart from the tables, because it
# needs a way to the brokers: configure the provider `kafka` where this is used.

terraform {
  required_version = ">= 1.6"

  required_providers {
    kafka = {
      source  = "Mongey/kafka"
      version = ">= 0.7"
    }
  }
}

variable "cluster" {
  description = "CLOCKWORK_CLUSTER."
  type        = string
  default     = "clockwork"
}

variable "shards" {
  description = "CLOCKWORK_SHARDS: fixed for the cluster's life."
  type        = number
  default     = 64
}

variable "commands" {
  description = "Whether CLOCKWORK_COMMANDS is on."
  type        = bool
  default     = false
}

variable "events" {
  description = "Whether CLOCKWORK_EVENTS is on."
  type        = bool
  default     = true
}

variable "replicas" {
  description = "Of each Kafka partition."
  type        = number
  default     = 3
}

resource "kafka_topic" "shards" {
  name               = "${var.cluster}-shards"
  partitions         = var.shards
  replication_factor = var.replicas

  config = {
    "retention.ms"                   = "3600000"
    "segment.ms"                     = "3600000"
    "min.insync.replicas"            = "2"
    "unclean.leader.election.enable" = "false"
    "compression.type"               = "producer"
  }
}

# Deleted or emptied by hand while a batch awaits cleanup, it lets that batch be delivered twice. The number of its Kafka
# partitions does not depend on that of the shards: markers go by incarnation and slot.
resource "kafka_topic" "deliveries" {
  name               = "${var.cluster}-deliveries"
  partitions         = 64
  replication_factor = var.replicas

  config = {
    "cleanup.policy"                 = "compact"
    "segment.bytes"                  = "4194304"
    "segment.ms"                     = "3600000"
    "min.cleanable.dirty.ratio"      = "0.1"
    "max.message.bytes"              = "2097152"
    "min.insync.replicas"            = "2"
    "unclean.leader.election.enable" = "false"
    "compression.type"               = "producer"
  }

  lifecycle {
    prevent_destroy = true
  }
}

# Only with CLOCKWORK_COMMANDS=on.
resource "kafka_topic" "commands" {
  count              = var.commands ? 1 : 0
  name               = "${var.cluster}-commands"
  partitions         = 16
  replication_factor = var.replicas

  config = {
    "retention.ms"                   = "604800000"
    "message.timestamp.type"         = "LogAppendTime"
    "max.message.bytes"              = "1000000"
    "min.insync.replicas"            = "2"
    "unclean.leader.election.enable" = "false"
    "compression.type"               = "producer"
  }
}

# For people who look, without any promise. Only with CLOCKWORK_EVENTS=on.
resource "kafka_topic" "events" {
  count              = var.events ? 1 : 0
  name               = "${var.cluster}-events"
  partitions         = 8
  replication_factor = var.replicas

  config = {
    "retention.ms"                   = "86400000"
    "segment.ms"                     = "3600000"
    "min.insync.replicas"            = "2"
    "unclean.leader.election.enable" = "false"
    "compression.type"               = "producer"
  }
}

resource "kafka_topic" "minutes" {
  count              = var.events ? 1 : 0
  name               = "${var.cluster}-minutes"
  partitions         = 1
  replication_factor = var.replicas

  config = {
    "retention.ms"                   = "691200000"
    "segment.ms"                     = "86400000"
    "min.insync.replicas"            = "2"
    "unclean.leader.election.enable" = "false"
    "compression.type"               = "producer"
  }
}

resource "kafka_topic" "dead_letters" {
  name               = "${var.cluster}-dead-letters"
  partitions         = 8
  replication_factor = var.replicas

  config = {
    "retention.ms"                   = "2592000000"
    "max.message.bytes"              = "4194304"
    "min.insync.replicas"            = "2"
    "unclean.leader.election.enable" = "false"
    "compression.type"               = "producer"
  }
}
