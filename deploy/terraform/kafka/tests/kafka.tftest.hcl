# terraform init && terraform test: the provider is mocked, so that no broker is needed and nothing is made.

mock_provider "kafka" {}

variables {
  needs_file       = "tests/needs.json"
  input_partitions = 12
}

run "topics_are_made_from_the_list_and_the_input_is_somebody_elses" {
  command = plan

  assert {
    condition     = join(" ", sort(keys(kafka_topic.this))) == "fraud.dead-letters fraud.explanations fraud.predictions fraud.status"
    error_message = "made: ${join(" ", sort(keys(kafka_topic.this)))}"
  }
  assert {
    condition     = output.topics == { "fraud.dead-letters" = 12, "fraud.explanations" = 12, "fraud.predictions" = 12, "fraud.status" = 1 }
    error_message = "Topics with results have as many partitions as the input, the status topic has one."
  }
  assert {
    condition     = alltrue([for topic in kafka_topic.this : topic.replication_factor == 3 && topic.config["min.insync.replicas"] == "2"])
    error_message = "Two of three replicas must have a record before it counts as written."
  }
  assert {
    condition     = kafka_topic.this["fraud.status"].config["cleanup.policy"] == "compact"
    error_message = "The status topic is compacted."
  }
}

run "the_input_can_be_made_too" {
  command = plan
  variables {
    create_input = true
  }
  assert {
    condition     = output.topics["payments"] == 12
    error_message = "The input topic has input_partitions."
  }
}

run "your_settings_of_a_topic_stand_before_the_lists" {
  command = plan
  variables {
    topic_config = { "fraud.dead-letters" = { "retention.ms" = "1000", "min.insync.replicas" = "1" } }
  }
  assert {
    condition     = kafka_topic.this["fraud.dead-letters"].config["retention.ms"] == "1000" && kafka_topic.this["fraud.dead-letters"].config["min.insync.replicas"] == "1"
    error_message = "topic_config was not laid over what the list says."
  }
  assert {
    condition     = kafka_topic.this["fraud.predictions"].config["min.insync.replicas"] == "2"
    error_message = "topic_config of one topic reached another."
  }
}

run "a_role_has_its_own_permissions_under_its_principal_and_no_more" {
  command = plan
  variables {
    roles      = ["scaler"]
    principals = { scaler = "User:fraud-scaler" }
    host       = "10.0.0.7"
  }
  assert {
    condition     = length(kafka_acl.this) == length(jsondecode(file("tests/needs.json")).roles.scaler)
    error_message = "There must be as many permissions as the list has for the scaler."
  }
  assert {
    condition     = alltrue([for acl in kafka_acl.this : acl.acl_principal == "User:fraud-scaler" && acl.acl_host == "10.0.0.7" && acl.acl_permission_type == "Allow"])
    error_message = "Each permission is allowed to the scaler's principal, from its host."
  }
  assert {
    condition     = alltrue([for acl in kafka_acl.this : acl.resource_type != "TransactionalID"]) && !contains(output.permissions, "scaler Write Topic Literal fraud.predictions")
    error_message = "The scaler writes no results."
  }
}

run "a_worker_may_read_the_input_and_write_results_in_transactions" {
  command = plan
  variables {
    roles = ["worker"]
  }
  assert {
    condition = length(setsubtract([
      "worker Read Topic Literal payments", "worker Write Topic Literal fraud.predictions", "worker Write TransactionalID Prefixed fraud"
    ], [for each in output.permissions : replace(each, "/(Prefixed fraud).*/", "$1")])) == 0
    error_message = join(", ", output.permissions)
  }
}

run "no_write_outlives_the_loss_of_a_broker_when_all_replicas_must_have_it" {
  command = plan
  variables {
    replication_factor = 2
  }
  expect_failures = [kafka_topic.this]
}

run "a_role_that_the_list_does_not_have" {
  command = plan
  variables {
    roles = ["worker", "reader"]
  }
  expect_failures = [kafka_acl.this]
}

run "a_principal_for_a_role_that_is_not_asked_for" {
  command = plan
  variables {
    principals = { tail = "User:x" }
  }
  expect_failures = [kafka_acl.this]
}

run "settings_for_a_topic_that_is_not_made" {
  command = plan
  variables {
    topic_config = { payments = {} }
  }
  expect_failures = [kafka_topic.this]
}

run "values_that_cannot_be" {
  command = plan
  variables {
    input_partitions = 1.5
    in_sync_min      = 0
    principals       = { worker = "fraud" }
  }
  expect_failures = [var.input_partitions, var.in_sync_min, var.principals]
}
