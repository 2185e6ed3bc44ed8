# The policies of infra/iam, for this region and account. Attach `node` (and `msk`) to the role of the nodes, `init` (and
# `msk-init`) besides only to the role that runs `python -m clockwork init`.

locals {
  iam_names = {
    partition        = data.aws_partition.current.partition
    region           = data.aws_region.current.name
    account          = data.aws_caller_identity.current.account_id
    schedules_table  = var.schedules_table
    executions_table = var.executions_table
    keys_table       = var.keys_table
    jobs_table       = var.jobs_table
  }

  # arn:aws:kafka:region:account:cluster/name/uuid is also the form of topics, groups and transactional ids.
  msk = var.msk_cluster_arn == null ? null : {
    cluster_arn = var.msk_cluster_arn
    cluster     = var.cluster
    group       = var.consumer_group
    topic_arn   = replace(var.msk_cluster_arn, ":cluster/", ":topic/")
    group_arn   = replace(var.msk_cluster_arn, ":cluster/", ":group/")
    id_arn      = replace(var.msk_cluster_arn, ":cluster/", ":transactional-id/")
  }

  msk_policy = var.msk_cluster_arn == null ? null : jsondecode(templatefile("${path.module}/../iam/msk.json", local.msk))

  client_topics = var.msk_cluster_arn == null || length(var.client_topics) == 0 ? [] : [{
    Sid      = "DeliverToClientsTopics"
    Effect   = "Allow"
    Action   = ["kafka-cluster:DescribeTopic", "kafka-cluster:DescribeTopicDynamicConfiguration", "kafka-cluster:WriteData"]
    Resource = [for topic in var.client_topics : "${local.msk.topic_arn}/${topic}"]
  }]

  dead_letter_topics = var.msk_cluster_arn == null || length(var.dead_letter_topics) == 0 ? [] : [{
    Sid    = "DeadLettersOfClients"
    Effect = "Allow"
    Action = [
      "kafka-cluster:DescribeTopic",
      "kafka-cluster:DescribeTopicDynamicConfiguration",
      "kafka-cluster:ReadData",
      "kafka-cluster:WriteData",
    ]
    Resource = [for topic in var.dead_letter_topics : "${local.msk.topic_arn}/${topic}"]
  }]
}

resource "aws_iam_policy" "node" {
  name   = "${var.cluster}-node"
  policy = templatefile("${path.module}/../iam/node.json", local.iam_names)
  tags   = var.tags
}

resource "aws_iam_policy" "init" {
  name   = "${var.cluster}-init"
  policy = templatefile("${path.module}/../iam/init.json", local.iam_names)
  tags   = var.tags
}

resource "aws_iam_policy" "msk" {
  count = var.msk_cluster_arn == null ? 0 : 1

  name = "${var.cluster}-msk"
  policy = jsonencode({
    Version   = local.msk_policy.Version
    Statement = concat(local.msk_policy.Statement, local.client_topics, local.dead_letter_topics)
  })
  tags = var.tags
}

resource "aws_iam_policy" "msk_init" {
  count = var.msk_cluster_arn == null ? 0 : 1

  name   = "${var.cluster}-msk-init"
  policy = templatefile("${path.module}/../iam/msk-init.json", local.msk)
  tags   = var.tags
}
