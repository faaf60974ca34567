# The topics and the least permissions of one pipeline, as `penstock acl penstock.yaml --json` tells them. Nothing is said twice here:
# whatever the settings name, that command knows.

terraform {
  required_version = ">= 1.5"
  required_providers {
    kafka = {
      source  = "Mongey/kafka"
      version = ">= 0.12, < 1.0"
    }
  }
}

locals {
  told   = jsondecode(file(var.needs_file))
  input  = local.told.topics[0].name
  topics = { for topic in local.told.topics : topic.name => topic if topic.name != local.input || var.create_input }

  # What the broker may do without losing a record that it has acknowledged: acks is always "all".
  durable = { "min.insync.replicas" = tostring(var.in_sync_min) }

  acls = merge([
    for role in var.roles : {
      for acl in lookup(local.told.roles, role, []) :
      "${role} ${acl.operation} ${acl.resource_type} ${acl.pattern_type} ${acl.resource_name}" => merge(
        acl, { principal = lookup(var.principals, role, acl.principal) }
      )
    }
  ]...)
}

resource "kafka_topic" "this" {
  for_each           = local.topics
  name               = each.key
  partitions         = coalesce(each.value.partitions, var.input_partitions)
  replication_factor = var.replication_factor
  config             = merge(local.durable, each.value.config, lookup(var.topic_config, each.key, {}))

  lifecycle {
    # Records are not made again. To give a topic up, take it out of the state first: terraform state rm.
    prevent_destroy = true
    precondition {
      condition     = var.in_sync_min < var.replication_factor || var.replication_factor == -1 || (var.replication_factor == 1 && var.in_sync_min == 1)
      error_message = "in_sync_min must be less than replication_factor, or the loss of one broker stops every write; with one replica it is 1."
    }
    precondition {
      condition     = alltrue([for name in keys(var.topic_config) : contains(keys(local.topics), name)])
      error_message = "topic_config names a topic that is not made here; there are ${join(", ", keys(local.topics))}."
    }
  }
}

resource "kafka_acl" "this" {
  for_each                     = local.acls
  resource_name                = each.value.resource_name
  resource_type                = each.value.resource_type
  resource_pattern_type_filter = each.value.pattern_type
  acl_principal                = each.value.principal
  acl_host                     = var.host
  acl_operation                = each.value.operation
  acl_permission_type          = each.value.permission_type

  lifecycle {
    precondition {
      condition     = alltrue([for role in keys(var.principals) : contains(var.roles, role)])
      error_message = "principals names a role that is not among roles: ${join(", ", setsubtract(keys(var.principals), var.roles))}."
    }
    precondition {
      condition     = alltrue([for role in var.roles : length(lookup(local.told.roles, role, [])) > 0])
      error_message = "needs_file has no permissions for every one of roles; write it with: penstock acl penstock.yaml --json, and the role audit only where the settings have a section admin."
    }
  }
}
