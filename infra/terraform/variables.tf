variable "cluster" {
  description = "CLOCKWORK_CLUSTER: prefix of the internal topics and transactional ids."
  type        = string
  default     = "clockwork"

  validation {
    condition     = can(regex("^[a-zA-Z0-9._-]{1,200}$", var.cluster))
    error_message = "Letters, digits, dot, underscore and dash, at most 200."
  }
}

variable "consumer_group" {
  description = "KAFKA_CONSUMER_GROUP: of the shards' owners."
  type        = string
  default     = "clockwork"
}

variable "schedules_table" {
  description = "SCHEDULE_DB."
  type        = string
  default     = "schedules"
}

variable "executions_table" {
  description = "PARTITION_EXEC_DB."
  type        = string
  default     = "partitionExecutions"
}

variable "keys_table" {
  description = "SCHEDULE_KEY_DB."
  type        = string
  default     = "scheduleKeys"
}

variable "jobs_table" {
  description = "JOB_DB."
  type        = string
  default     = "jobs"
}

variable "kms_key_arn" {
  description = "A key of your own for the tables; null: DynamoDB's."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Off only for a cluster that may be lost."
  type        = bool
  default     = true
}

variable "msk_cluster_arn" {
  description = "With CLOCKWORK_KAFKA_SASL_MECHANISM=AWS_MSK_IAM: the MSK cluster; null: no rights in Kafka are made."
  type        = string
  default     = null
}

variable "client_topics" {
  description = "Names, or prefixes that end in *, of the topics that clients may name; for the rights in MSK."
  type        = list(string)
  default     = []
}

variable "dead_letter_topics" {
  description = "The topics in CLOCKWORK_DEAD_LETTER_TOPICS; for the rights in MSK."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "On everything that takes tags."
  type        = map(string)
  default     = {}
}
