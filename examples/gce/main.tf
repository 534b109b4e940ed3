# A fleet of cachecluster nodes: a regional managed instance group whose members find one
# another, an internal load balancer before it, and nothing open that need not be.

terraform {
  required_version = ">= 1.3"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

# --- Who the nodes are -----------------------------------------------------------------

resource "google_service_account" "node" {
  account_id   = var.name
  display_name = "cachecluster nodes"
}

# All that discovery asks for.
resource "google_project_iam_custom_role" "discovery" {
  role_id     = replace("${var.name}_discovery", "-", "_")
  title       = "cachecluster discovery"
  permissions = ["compute.instances.list"]
}

resource "google_project_iam_member" "discovery" {
  project = var.project
  role    = google_project_iam_custom_role.discovery.name
  member  = google_service_account.node.member
}

resource "google_secret_manager_secret_iam_member" "key" {
  project   = var.project
  secret_id = var.key_secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.node.member
}

resource "google_storage_bucket_iam_member" "package" {
  bucket = var.package.bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.node.member
}

# --- The nodes -------------------------------------------------------------------------

resource "google_compute_instance_template" "node" {
  name_prefix  = "${var.name}-"
  machine_type = var.machine_type
  tags         = [var.name]

  metadata = {
    # What `[meta]` of cachecluster.toml looks for.
    service = var.name

    startup-script              = file("${path.module}/startup.sh")
    cachecluster-config         = file("${path.module}/cachecluster.toml")
    cachecluster-key-secret     = "projects/${var.project}/secrets/${var.key_secret}"
    cachecluster-package-bucket = var.package.bucket
    cachecluster-package-object = var.package.object
    cachecluster-package-sha256 = var.package.sha256
  }

  disk {
    source_image = var.image
    boot         = true
    auto_delete  = true
  }

  network_interface {
    network    = var.subnetwork == null ? var.network : null
    subnetwork = var.subnetwork
  }

  service_account {
    email = google_service_account.node.email
    scopes = [
      # For instances.list. Without it the API answers 403, whatever IAM says.
      "compute-ro",
      # For the package.
      "storage-ro",
      # For Secret Manager, which has no scope of its own. What the account may do in fact is
      # what the bindings above say. With the key in the metadata, leave this one out.
      "cloud-platform",
    ]
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_region_instance_group_manager" "fleet" {
  name               = var.name
  base_instance_name = var.name
  region             = var.region
  target_size        = var.size

  version {
    instance_template = google_compute_instance_template.node.self_link_unique
  }

  named_port {
    name = "http"
    port = 8080
  }

  auto_healing_policies {
    health_check = google_compute_health_check.heal.self_link
    # A boot, the package, and the first compilation of the plugins.
    initial_delay_sec = 180
  }

  # One new instance a zone before an old one goes. A node that is told to go hands its
  # hottest keys over first, and one that comes asks the others' memory before the origin.
  update_policy {
    type                         = "PROACTIVE"
    minimal_action               = "REPLACE"
    instance_redistribution_type = "PROACTIVE"
    max_surge_fixed              = length(data.google_compute_zones.region.names)
    max_unavailable_fixed        = 0
  }

  # An instance that does not boot is not a reason for Terraform to wait for ever.
  timeouts {
    create = "15m"
    update = "30m"
  }

  depends_on = [
    google_project_iam_member.discovery,
    google_secret_manager_secret_iam_member.key,
    google_storage_bucket_iam_member.package,
  ]
}

data "google_compute_zones" "region" {
  region = var.region
}

# --- How they are ----------------------------------------------------------------------

# Whether the process answers at all. One that does not is replaced, with all that it holds:
# slow to judge on purpose.
resource "google_compute_health_check" "heal" {
  name                = "${var.name}-heal"
  check_interval_sec  = 10
  timeout_sec         = 5
  healthy_threshold   = 1
  unhealthy_threshold = 6

  http_health_check {
    port         = 9081
    request_path = "/livez"
  }
}

# Whether it is to get requests: not while it starts, and not while it drains.
resource "google_compute_health_check" "balance" {
  name                = "${var.name}-balance"
  check_interval_sec  = 2
  timeout_sec         = 2
  healthy_threshold   = 1
  unhealthy_threshold = 2

  http_health_check {
    port         = 9081
    request_path = "/readyz"
  }
}

# --- Who reaches them ------------------------------------------------------------------

resource "google_compute_region_backend_service" "fleet" {
  name                            = var.name
  region                          = var.region
  protocol                        = "TCP"
  load_balancing_scheme           = "INTERNAL"
  health_checks                   = [google_compute_health_check.balance.self_link]
  connection_draining_timeout_sec = 30

  backend {
    group          = google_compute_region_instance_group_manager.fleet.instance_group
    balancing_mode = "CONNECTION"
  }
}

resource "google_compute_forwarding_rule" "fleet" {
  name                  = var.name
  region                = var.region
  load_balancing_scheme = "INTERNAL"
  backend_service       = google_compute_region_backend_service.fleet.self_link
  ip_protocol           = "TCP"
  ports                 = ["8080"]
  network               = var.network
  subnetwork            = var.subnetwork
}

# Nodes among one another: keys by TCP, gossip by UDP and TCP.
resource "google_compute_firewall" "members" {
  name        = "${var.name}-members"
  network     = var.network
  source_tags = [var.name]
  target_tags = [var.name]

  allow {
    protocol = "tcp"
    ports    = ["9080", "9999"]
  }

  allow {
    protocol = "udp"
    ports    = ["9999"]
  }
}

# Google's health checks, to the port of operators alone.
resource "google_compute_firewall" "health" {
  name          = "${var.name}-health"
  network       = var.network
  source_ranges = ["35.191.0.0/16", "130.211.0.0/22"]
  target_tags   = [var.name]

  allow {
    protocol = "tcp"
    ports    = ["9081"]
  }
}

resource "google_compute_firewall" "clients" {
  name        = "${var.name}-clients"
  network     = var.network
  source_tags = var.client_tags
  target_tags = [var.name]

  allow {
    protocol = "tcp"
    ports    = ["8080"]
  }
}
