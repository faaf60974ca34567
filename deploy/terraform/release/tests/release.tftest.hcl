# terraform init && terraform test: the provider is mocked, so that no cluster is needed and nothing is installed.

mock_provider "helm" {}

variables {
  name          = "prod"
  namespace     = "fraud"
  chart         = "../../helm/penstock"
  settings_file = "tests/penstock.yaml"
  image         = "penstock:cpu"
}

run "the_chart_gets_the_settings_of_the_file" {
  assert {
    condition     = helm_release.this.name == "prod" && helm_release.this.namespace == "fraud" && helm_release.this.wait && helm_release.this.timeout == 600
    error_message = "The release waits until its pods are ready, ten minutes at most."
  }
  assert {
    condition     = yamldecode(helm_release.this.values[0]).settings.scaling.max_age_s == 20 && yamldecode(helm_release.this.values[0]).settings.http.port == 9102
    error_message = "What the file says did not reach the chart."
  }
  assert {
    condition     = output.values.settings.http.host == "0.0.0.0" && output.values.settings.scaling.host == "0.0.0.0"
    error_message = "In a pod both ports are asked from elsewhere."
  }
  assert {
    condition     = output.values.settings.output.explanations == null && output.values.settings.output.predictions == "fraud.predictions"
    error_message = "What the file leaves out must not come from the chart's own example."
  }
  assert {
    condition     = !output.values.podMonitor.enabled && !output.values.prometheusRule.enabled
    error_message = "The Prometheus operator's objects need its definitions in the cluster: nothing of it unless asked for."
  }
}

run "your_values_come_last" {
  variables {
    values       = ["worker: {podLabels: {team: fraud}}"]
    image_digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    secret_name  = "login"
    monitoring   = true
  }
  assert {
    condition     = length(helm_release.this.values) == 2 && yamldecode(helm_release.this.values[1]).worker.podLabels.team == "fraud"
    error_message = "values are laid over the module's own."
  }
  assert {
    condition     = startswith(output.values.image.digest, "sha256:") && output.values.secretName == "login" && output.values.podMonitor.enabled
    error_message = "Image, secret or monitoring did not reach the chart."
  }
}

run "a_digest_is_one" {
  command = plan
  variables {
    image_digest = "latest"
  }
  expect_failures = [var.image_digest]
}
