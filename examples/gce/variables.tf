variable "project" {
  description = "Project that the fleet is in."
  type        = string
}

variable "region" {
  description = "Region that the fleet is in; its instances are spread over the region's zones."
  type        = string
  default     = "us-central1"
}

variable "name" {
  description = "Name of the fleet: its network tag, and its metadata `service`. cachecluster.toml names both."
  type        = string
  default     = "cachecluster"
}

variable "size" {
  description = "Instances."
  type        = number
  default     = 3
}

variable "machine_type" {
  description = "Machine type. The groups' memory in cachecluster.toml has to fit, and plugins beside it."
  type        = string
  default     = "e2-medium"
}

variable "image" {
  description = "Boot image. Type=notify-reload wants systemd 253 or newer: Debian 13."
  type        = string
  default     = "debian-cloud/debian-13"
}

variable "network" {
  description = "Network, by its name or URL."
  type        = string
  default     = "default"
}

variable "subnetwork" {
  description = "Subnetwork of the region, by its name or URL; null for networks that make their own."
  type        = string
  default     = null
}

variable "client_tags" {
  description = "Network tags of the instances that may ask the cache."
  type        = list(string)
  default     = ["cachecluster-client"]
}

variable "package" {
  description = "The Debian package: an object of Cloud Storage, and the digest that sha256sum prints."
  type = object({
    bucket = string
    object = string
    sha256 = string
  })
}

variable "key_secret" {
  description = "Secret of Secret Manager, in this project, whose latest version is the cluster's key file."
  type        = string
  default     = "cachecluster-key"
}
