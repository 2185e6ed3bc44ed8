output "node_policy_arns" {
  description = "For the role of the nodes."
  value       = concat([aws_iam_policy.node.arn], aws_iam_policy.msk[*].arn)
}

output "init_policy_arns" {
  description = "For the role that runs `python -m clockwork init`, beside the node's."
  value       = concat([aws_iam_policy.init.arn], aws_iam_policy.msk_init[*].arn)
}

output "environment" {
  description = "Settings of the nodes that follow from this module."
  value = {
    AWS_REGION           = data.aws_region.current.name
    SCHEDULE_DB          = aws_dynamodb_table.schedules.name
    PARTITION_EXEC_DB    = aws_dynamodb_table.executions.name
    SCHEDULE_KEY_DB      = aws_dynamodb_table.keys.name
    JOB_DB               = aws_dynamodb_table.jobs.name
    CLOCKWORK_CLUSTER    = var.cluster
    KAFKA_CONSUMER_GROUP = var.consumer_group
  }
}
