output "values" {
  value       = local.values
  description = "What the chart is given, before `values`."
}
