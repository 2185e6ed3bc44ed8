# The four tables, as clockwork/stores/dynamodb/schema.py makes them; a test compares. The items of a new cluster are made
# by `python -m clockwork init`, once.

resource "aws_dynamodb_table" "schedules" {
  name                        = var.schedules_table
  billing_mode                = "PAY_PER_REQUEST"
  deletion_protection_enabled = var.deletion_protection
  hash_key                    = "partitionId"
  range_key                   = "scheduleTime"
  tags                        = var.tags

  attribute {
    name = "partitionId"
    type = "S"
  }

  attribute {
    name = "scheduleTime"
    type = "N"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}

# Items of shards and incarnations: epochs, owners, floors; frontiers and fences. No TTL: an owner whose item expires can never be
# replaced. Point-in-time recovery is against loss, no way to undo: rows of an earlier moment are delivered again, and a
# frontier or floor of an earlier moment lets cancels be answered wrongly.
resource "aws_dynamodb_table" "executions" {
  name                        = var.executions_table
  billing_mode                = "PAY_PER_REQUEST"
  deletion_protection_enabled = var.deletion_protection
  hash_key                    = "partitionId"
  tags                        = var.tags

  attribute {
    name = "partitionId"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}

resource "aws_dynamodb_table" "keys" {
  name                        = var.keys_table
  billing_mode                = "PAY_PER_REQUEST"
  deletion_protection_enabled = var.deletion_protection
  hash_key                    = "clientKey"
  range_key                   = "position"
  tags                        = var.tags

  attribute {
    name = "clientKey"
    type = "S"
  }

  attribute {
    name = "position"
    type = "N"
  }

  attribute {
    name = "listedUnder"
    type = "S"
  }

  attribute {
    name = "current"
    type = "N"
  }

  # What GET /schedules lists from (clockwork/stores/dynamodb/index.py). It costs a write unit per create: with
  # CLOCKWORK_SEARCH=off leave it and its two attributes out.
  global_secondary_index {
    name            = "byClient"
    hash_key        = "listedUnder"
    range_key       = "current"
    projection_type = "ALL"
  }

  ttl {
    attribute_name = "expiresAt"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}

# State, definitions and log of each recurring job. TTL deletes entries of the log, completions and requests; the audit deletes
# states and definitions. A state of an earlier moment than its row's is found by the audit, and its chain goes on from there.
resource "aws_dynamodb_table" "jobs" {
  name                        = var.jobs_table
  billing_mode                = "PAY_PER_REQUEST"
  deletion_protection_enabled = var.deletion_protection
  hash_key                    = "jobKey"
  range_key                   = "item"
  tags                        = var.tags

  attribute {
    name = "jobKey"
    type = "S"
  }

  attribute {
    name = "item"
    type = "S"
  }

  attribute {
    name = "listedUnder"
    type = "S"
  }

  attribute {
    name = "jobId"
    type = "S"
  }

  # The jobs of a client, and the audit's scan. Nothing in it changes while a job lives, so firing writes nothing to it.
  global_secondary_index {
    name            = "byClient"
    hash_key        = "listedUnder"
    range_key       = "jobId"
    projection_type = "KEYS_ONLY"
  }

  ttl {
    attribute_name = "expiresAt"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}
