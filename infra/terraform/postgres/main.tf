# The database of a cluster with CLOCKWORK_STORE=postgresql: Aurora PostgreSQL, in two zones. A module of its own, in the place of
# the tables of the folder above. Aurora acknowledges a write when it is stored in four of six copies, so a failover takes nothing
# back; so does RDS in several zones, but for its read replicas: never promote one (docs/postgresql.md).
#
# Then, once, as the administrator in the secret: infra/postgres/rights.sql, with a password for each of the two roles.

terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.60, < 7.0"
    }
  }
}

variable "cluster" {
  description = "CLOCKWORK_CLUSTER: name of the database cluster."
  type        = string
  default     = "clockwork"
}

variable "subnet_ids" {
  description = "Subnets in at least two zones, reached by the nodes only."
  type        = list(string)
}

variable "vpc_id" {
  description = "The network of the subnets."
  type        = string
}

variable "node_security_group_id" {
  description = "Security group of the nodes: nothing else may connect."
  type        = string
}

variable "engine_version" {
  description = "Of Aurora PostgreSQL: 15 or later."
  type        = string
  default     = "16.6"
}

variable "instance_class" {
  description = "See infra/capacity.md, \"PostgreSQL\"."
  type        = string
  default     = "db.r7g.large"
}

variable "instances" {
  description = "A writer, and what can take its place."
  type        = number
  default     = 2

  validation {
    condition     = var.instances >= 2
    error_message = "One alone has nothing to fail over to."
  }
}

variable "kms_key_arn" {
  description = "A key of your own for the data; null: Amazon's."
  type        = string
  default     = null
}

variable "backup_days" {
  description = "For how long any moment can be restored."
  type        = number
  default     = 7
}

variable "deletion_protection" {
  description = "Off only for a cluster that may be lost."
  type        = bool
  default     = true
}

variable "tags" {
  description = "On everything that takes tags."
  type        = map(string)
  default     = {}
}

resource "aws_db_subnet_group" "this" {
  name       = var.cluster
  subnet_ids = var.subnet_ids
  tags       = var.tags
}

resource "aws_security_group" "this" {
  name_prefix = "${var.cluster}-postgresql-"
  description = "PostgreSQL of Clockwork"
  vpc_id      = var.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "nodes" {
  security_group_id            = aws_security_group.this.id
  description                  = "Nodes"
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  referenced_security_group_id = var.node_security_group_id
}

resource "aws_rds_cluster_parameter_group" "this" {
  name_prefix = "${var.cluster}-"
  family      = "aurora-postgresql${split(".", var.engine_version)[0]}"
  description = "PostgreSQL of Clockwork"
  tags        = var.tags

  # No connection without TLS.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  # A forgotten session must not keep dead rows for ever.
  parameter {
    name  = "idle_in_transaction_session_timeout"
    value = "600000"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_rds_cluster" "this" {
  cluster_identifier              = var.cluster
  engine                          = "aurora-postgresql"
  engine_version                  = var.engine_version
  database_name                   = "clockwork"
  master_username                 = "clockwork_admin"
  manage_master_user_password     = true
  db_subnet_group_name            = aws_db_subnet_group.this.name
  db_cluster_parameter_group_name = aws_rds_cluster_parameter_group.this.name
  vpc_security_group_ids          = [aws_security_group.this.id]
  storage_encrypted               = true
  kms_key_id                      = var.kms_key_arn
  backup_retention_period         = var.backup_days
  copy_tags_to_snapshot           = true
  deletion_protection             = var.deletion_protection
  skip_final_snapshot             = !var.deletion_protection
  final_snapshot_identifier       = var.deletion_protection ? "${var.cluster}-final" : null
  enabled_cloudwatch_logs_exports = ["postgresql"]
  tags                            = var.tags
}

resource "aws_rds_cluster_instance" "this" {
  count = var.instances

  identifier                   = "${var.cluster}-${count.index}"
  cluster_identifier           = aws_rds_cluster.this.id
  engine                       = aws_rds_cluster.this.engine
  engine_version               = aws_rds_cluster.this.engine_version
  instance_class               = var.instance_class
  performance_insights_enabled = true
  tags                         = var.tags
}

output "environment" {
  description = "Settings of the nodes that follow from this module. User and password come by a secret; the authorities are Amazon's bundle (global-bundle.pem)."
  value = {
    CLOCKWORK_STORE        = "postgresql"
    CLOCKWORK_POSTGRES_URL = "postgresql://${aws_rds_cluster.this.endpoint}:${aws_rds_cluster.this.port}/${aws_rds_cluster.this.database_name}"
  }
}

output "administrator_secret_arn" {
  description = "Name and password of the administrator, for infra/postgres/rights.sql."
  value       = aws_rds_cluster.this.master_user_secret[0].secret_arn
}
