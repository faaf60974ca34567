variable "name" {
  type        = string
  default     = "penstock"
  description = "Of the release; part of every object's name and of the label `release`."
}

variable "namespace" {
  type        = string
  description = "Where it is installed; it must exist."
}

variable "chart" {
  type        = string
  description = "The folder deploy/helm/penstock, or where your registry has the chart."
}

variable "settings_file" {
  type        = string
  description = "penstock.yaml, without secrets; the hosts of both ports are set here."
}

variable "image" {
  type        = string
  description = "The image with its tag."
}

variable "image_digest" {
  type        = string
  default     = ""
  description = "sha256:... pins the image whatever its tag says."
  validation {
    condition     = var.image_digest == "" || can(regex("^sha256:[0-9a-f]{64}$", var.image_digest))
    error_message = "image_digest is sha256: and 64 hexadecimal digits."
  }
}

variable "secret_name" {
  type        = string
  default     = ""
  description = "Name of a Secret whose keys are PENSTOCK_ variables, such as PENSTOCK_KAFKA__SECURITY__PASSWORD."
}

variable "monitoring" {
  type        = bool
  default     = false
  description = "Whether the Prometheus operator's PodMonitor and PrometheusRule are made."
}

variable "ready_within_s" {
  type        = number
  default     = 600
  description = "So long the pods may take until they are ready."
}

variable "values" {
  type        = list(string)
  default     = []
  description = "More values of the chart, as YAML; what comes later counts."
}
