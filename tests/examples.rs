//! What is there to be copied works: the settings are good, the scripts are scripts, and what
//! several files say of one thing agrees.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cachecluster::config::Config;

use crate::harness::{
    command,
    node::{cachecluster, component},
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Checks a file of settings as a user would, with `env` around it.
fn check(file: &str, env: &[(&str, &str)]) {
    let file = repository().join(file);
    let checked = command::run(|command| {
        command.arg("--config").arg(&file).arg("check").envs(env.iter().copied());
    });
    assert_eq!(
        (checked.code, checked.err.as_str()),
        (0, ""),
        "{}: {}",
        file.display(),
        checked.out
    );
}

#[test]
fn the_settings_of_the_fleet_on_compute_engine_are_good() {
    let plugin = component("http").display().to_string();
    // As startup.sh writes it to /etc/default/cachecluster.
    let env = [
        ("CACHECLUSTER_PLUGINS__ITEMS__SOURCE", plugin.as_str()),
        ("CACHECLUSTER_MATCH__REGIONS", "us-central1"),
        ("CACHECLUSTER_CLUSTER__ZONE", "us-central1-b"),
    ];
    check("examples/gce/cachecluster.toml", &env);
}

#[test]
fn the_settings_of_the_package_are_good() {
    check("packaging/debian/cachecluster.toml", &[]);
}

#[test]
fn terraform_opens_the_ports_and_sets_the_marks_that_the_settings_name() {
    let path = repository().join("examples/gce/cachecluster.toml");
    let config = Config::load(&path, std::iter::empty()).expect("good").config;
    let terraform = read("examples/gce/main.tf");
    let (http, admin) = (config.http.listen.port(), config.admin.listen.port());
    let (peers, gossip) = (config.peers_listen().port(), config.cluster.port);
    for text in [
        format!("ports    = [\"{peers}\", \"{gossip}\"]"),
        format!("ports    = [\"{gossip}\"]"),
        format!("ports    = [\"{http}\"]"),
        format!("ports    = [\"{admin}\"]"),
        format!("port         = {admin}"),
        "file(\"${path.module}/cachecluster.toml\")".to_owned(),
        "file(\"${path.module}/startup.sh\")".to_owned(),
        "\"compute-ro\"".to_owned(),
    ] {
        assert!(terraform.contains(&text), "no {text}");
    }
    let name = read("examples/gce/variables.tf");
    let tag = &config.matching.tags[0];
    assert!(name.contains(&format!("default     = \"{tag}\"")), "no {tag}");
    assert_eq!(&config.meta["service"], tag);
    // Everybody who may ask does so on an address that is not loopback.
    assert!(config.http.listen.ip().is_unspecified() && config.admin.listen.ip().is_unspecified());
}

#[test]
fn scripts_are_scripts() {
    for script in ["examples/gce/startup.sh", "packaging/cachecluster.service"] {
        assert!(!read(script).contains('\t'), "{script}");
    }
    let checked = Command::new("bash")
        .arg("-n")
        .arg(repository().join("examples/gce/startup.sh"))
        .output()
        .expect("to run bash");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_unit_starts_the_node_with_the_settings_that_are_installed() {
    let unit = read("packaging/cachecluster.service");
    assert_eq!(unit, read("examples/gce/cachecluster.service"), "the example has another unit");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a start");
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/cachecluster");
    assert_eq!(words[2], "/etc/cachecluster/cachecluster.toml");
    assert!(read("host/Cargo.toml").contains("etc/cachecluster/cachecluster.toml"));
    assert!(read("examples/gce/startup.sh").contains("folder=/etc/cachecluster\n"));
    // The command line is one, and what it lacks here is the file.
    let nowhere = words[1..].iter().map(|word| word.replace("/etc/", "/no/such/folder/"));
    let ran = cachecluster().args(nowhere).output().expect("to run");
    assert_eq!(ran.status.code(), Some(78), "{}", String::from_utf8_lossy(&ran.stderr));
    // What the unit says of exit codes is what they are.
    assert!(unit.contains("RestartPreventExitStatus=2 78\n"));
}
