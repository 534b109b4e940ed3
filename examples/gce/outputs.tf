output "address" {
  description = "Where clients ask: http://ADDRESS:8080/{group}/{key}"
  value       = google_compute_forwarding_rule.fleet.ip_address
}
