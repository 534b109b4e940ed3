#!/usr/bin/env bash
# Makes an instance a node: installs the package, the settings and the cluster's key, and
# starts the node, or has it read its settings again if it runs. Compute Engine runs this as
# root at every boot; to run it again does no harm.
set -euo pipefail

metadata=http://${GCE_METADATA_HOST:-169.254.169.254}/computeMetadata/v1
folder=/etc/cachecluster

# An attribute of the instance, or the second argument where it has none.
attribute() {
    curl --silent --fail --retry 5 --retry-connrefused --max-time 10 --noproxy '*' \
        --header 'Metadata-Flavor: Google' "$metadata/instance/attributes/$1" ||
        if [ $? = 22 ]; then printf '%s' "${2-}"; else return 1; fi
}

# Whatever else the metadata server knows.
metadata() {
    curl --silent --show-error --fail --retry 5 --retry-connrefused --max-time 10 --noproxy '*' \
        --header 'Metadata-Flavor: Google' "$metadata/$1"
}

# A string of a JSON object that has it once.
field() {
    tr -d '\n' | sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p'
}

# Asks an API of Google's as the instance's service account. The token stands in no list of
# processes.
api() {
    local token
    token=$(metadata instance/service-accounts/default/token | field access_token)
    curl --silent --show-error --fail --retry 5 --max-time 300 \
        --config <(printf 'header = "Authorization: Bearer %s"\n' "$token") "$@"
}

# Writes a text to a file, with this mode and owner, unless it says so already. Tells by
# `changed` whether it did.
changed=
place() {
    local file=$1 mode=$2 owner=$3 text=$4 new
    if printf '%s\n' "$text" | cmp --silent - "$file"; then
        return
    fi
    new=$(mktemp "$file.XXXXXX")
    printf '%s\n' "$text" >"$new"
    chown "$owner" "$new"
    chmod "$mode" "$new"
    mv "$new" "$file"
    changed=1
}

install_package() {
    local bucket object sum file
    bucket=$(attribute cachecluster-package-bucket)
    object=$(attribute cachecluster-package-object)
    sum=$(attribute cachecluster-package-sha256)
    if [ -z "$bucket" ]; then
        # An image of one's own brings it along.
        command -v cachecluster >/dev/null
        return
    fi
    if [ "$(cat /var/lib/cachecluster.installed 2>/dev/null)" = "$sum" ]; then
        return
    fi
    file=$(mktemp --suffix .deb)
    api --output "$file" \
        "https://storage.googleapis.com/storage/v1/b/$bucket/o/${object//\//%2F}?alt=media"
    sha256sum --check --status <<<"$sum  $file"
    # The settings that are there already are this script's, and stay.
    DEBIAN_FRONTEND=noninteractive dpkg --install --force-confold "$file"
    printf '%s\n' "$sum" >/var/lib/cachecluster.installed
    rm "$file"
}

# The key, from Secret Manager where that is where it is, else from the metadata.
cluster_key() {
    local secret
    secret=$(attribute cachecluster-key-secret)
    if [ -n "$secret" ]; then
        api "https://secretmanager.googleapis.com/v1/$secret/versions/latest:access" |
            field data | base64 --decode
    else
        attribute cachecluster-key
    fi
}

install -d -m 0755 "$folder"
settings=$(attribute cachecluster-config)
place "$folder/cachecluster.toml" 0644 root:root "$settings"
install_package
key=$(cluster_key)
if [ -z "$key" ]; then
    echo "no key: set the attribute cachecluster-key-secret, or cachecluster-key" >&2
    exit 1
fi
place "$folder/cluster.key" 0400 cachecluster:cachecluster "$key"
zone=$(metadata instance/zone)
zone=${zone##*/}
place /etc/default/cachecluster 0644 root:root "CACHECLUSTER_MATCH__REGIONS=${zone%-*}
CACHECLUSTER_CLUSTER__ZONE=$zone"

(
    set -a
    # shellcheck source=/dev/null
    . /etc/default/cachecluster
    cachecluster --config "$folder/cachecluster.toml" check
)
systemctl enable cachecluster
if ! systemctl is-active --quiet cachecluster; then
    systemctl start cachecluster
elif [ -n "$changed" ]; then
    systemctl reload cachecluster
fi
