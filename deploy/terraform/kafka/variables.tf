variable "needs_file" {
  type        = string
  description = "What `penstock acl penstock.yaml --json` printed: topics and permissions."
}

variable "input_partitions" {
  type        = number
  description = "Of the input topic, and so of the topics with results: records keep their partition. Also the most workers that can have work."
  validation {
    condition     = var.input_partitions >= 1 && floor(var.input_partitions) == var.input_partitions
    error_message = "input_partitions must be a whole number from 1."
  }
}

variable "create_input" {
  type        = bool
  default     = false
  description = "Whether the input topic is made too; most often it is somebody else's."
}

variable "replication_factor" {
  type        = number
  default     = 3
  description = "Replicas of each topic; -1: as the broker does by default."
}

variable "in_sync_min" {
  type        = number
  default     = 2
  description = "min.insync.replicas of each topic."
  validation {
    condition     = var.in_sync_min >= 1
    error_message = "in_sync_min must be at least 1."
  }
}

variable "topic_config" {
  type        = map(map(string))
  default     = {}
  description = "More settings by topic, as in {\"fraud.dead-letters\" = {\"retention.ms\" = \"7776000000\"}}."
}

variable "roles" {
  type        = set(string)
  default     = ["worker", "scaler"]
  description = "Which of worker, scaler, lag, letters, replay, audit, tail and offsets get their permissions."
}

variable "principals" {
  type        = map(string)
  default     = {}
  description = "Who each role is, as in {worker = \"User:fraud-worker\"}; default: User:ROLE."
  validation {
    condition     = alltrue([for name in values(var.principals) : can(regex("^[A-Za-z]+:.+", name))])
    error_message = "principals are written with their type, as in User:fraud-worker."
  }
}

variable "host" {
  type        = string
  default     = "*"
  description = "From which host the principals may come; * is any."
}
