output "topics" {
  value       = { for name, topic in kafka_topic.this : name => topic.partitions }
  description = "Partitions of each topic that was made."
}

output "permissions" {
  value       = sort(keys(local.acls))
  description = "Role, operation and resource of each permission that was given."
}
