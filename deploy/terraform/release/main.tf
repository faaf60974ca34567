# Penstock's chart as a release of Terraform's Helm provider, with the settings from the same penstock.yaml that is checked elsewhere.

terraform {
  required_version = ">= 1.5"
  required_providers {
    helm = {
      source  = "hashicorp/helm"
      version = ">= 2.12, < 4.0"
    }
  }
}

locals {
  settings = yamldecode(file(var.settings_file))
  # In a pod both ports are asked from elsewhere.
  hosts = {
    http    = merge(try(local.settings.http, {}), { host = "0.0.0.0" })
    scaling = merge(try(local.settings.scaling, {}), { host = "0.0.0.0" })
  }
  # What the settings leave out must not come from the chart's own example.
  output = { output = merge({ explanations = null, status = null }, local.settings.output) }
  values = {
    settings       = merge(local.settings, local.hosts, local.output)
    image          = { name = var.image, digest = var.image_digest }
    secretName     = var.secret_name
    podMonitor     = { enabled = var.monitoring }
    prometheusRule = { enabled = var.monitoring }
  }
}

resource "helm_release" "this" {
  name      = var.name
  namespace = var.namespace
  chart     = var.chart
  # Yours last: they are laid over the others key by key.
  values = concat([yamlencode(local.values)], var.values)
  wait   = true
  # A model is copied, verified and warmed up before a worker is ready.
  timeout = var.ready_within_s
}
