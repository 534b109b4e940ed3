//! Secrets: what a guest gets, and what comes of it when it tells them.

use std::path::Path;

use super::guest::{Bench, Guest, body, fill, guest};
use crate::{
    group::{FillError, Getter},
    plugin::Plugin,
};

const TOKEN: &str = "s3cr3t-Token";

/// Puts the token where the settings of [`secret`] say.
fn write(bench: &Bench, token: &str) {
    std::fs::write(bench.file().with_file_name("token"), token).expect("written");
}

fn secret(settings: &mut crate::config::Plugin) {
    settings.secrets.insert("token".to_owned(), "file:token".to_owned());
    settings.config.insert("greeting".to_owned(), "hello".to_owned());
}

/// Looks the setting up that the key names, leaves its text at `$at` and its length at
/// `$len`, and goes on with `then`; finds nothing where there is none.
fn with_setting(then: &str) -> Guest {
    guest(&format!(
        "(local $at i32)
         (call $config-get (local.get $key) (local.get $len) (i32.const 256))
         (if (i32.eqz (i32.load8_u (i32.const 256)))
           (then (return (call $found (i32.const 0) (i32.const 0)))))
         (local.set $at (i32.load (i32.const 260)))
         (local.set $len (i32.load (i32.const 264)))
         {then}"
    ))
    .with_config()
}

const FIND: &str = "(call $found (local.get $at) (local.get $len))";

#[tokio::test]
async fn a_plugin_gets_its_secrets_by_name_beside_its_settings() {
    let bench = Bench::new();
    write(&bench, "s3cr3t-Token\n");
    let plugin = bench.load_with(&with_setting(FIND), secret).await;
    assert_eq!(body(&plugin, "token").await, Ok(TOKEN.as_bytes().to_vec()));
    assert_eq!(body(&plugin, "greeting").await, Ok(b"hello".to_vec()));
    assert_eq!(body(&plugin, "other").await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_secret_that_is_not_there_keeps_the_plugin_from_loading() {
    let bench = Bench::new();
    let load = bench.load_bytes(&with_setting(FIND).bytes(), secret).await;
    let error = load.map(|_| ()).expect_err("no file").to_string();
    for part in ["plugin `p`", "secrets.token", "there is no file", "create it"] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

#[tokio::test]
async fn secrets_are_read_anew_with_the_settings() {
    let bench = Bench::new();
    write(&bench, "the-old-one");
    let plugin = bench.load_with(&with_setting(FIND), secret).await;
    write(&bench, "the-new-one");
    assert_eq!(body(&plugin, "token").await, Ok(b"the-old-one".to_vec()));
    let settings = super::guest::settings(secret);
    let folder = bench.file();
    let folder = folder.parent().unwrap_or(Path::new("."));
    let prepared = plugin.prepare(&settings, folder).await.expect("good settings");
    plugin.install(prepared);
    assert_eq!(body(&plugin, "token").await, Ok(b"the-new-one".to_vec()));
}

/// Fails with the setting as the error of this case.
fn failing(case: u32) -> Guest {
    with_setting(&format!("(call $fail (i32.const {case}) (local.get $at) (local.get $len))"))
}

async fn failure(plugin: &Plugin) -> FillError {
    plugin.load(fill("token")).await.map(|_| ()).expect_err("it fails")
}

#[tokio::test]
async fn a_secret_in_an_error_is_replaced_by_its_name() {
    let bench = Bench::new();
    write(&bench, TOKEN);
    for case in [0, 1, 2, 4] {
        let plugin = bench.load_with(&failing(case), secret).await;
        let error = failure(&plugin).await;
        let status = serde_json::to_string(&plugin.status()).expect("a status");
        let said = format!("{error:?} {error} {status}");
        assert!(!said.contains(TOKEN), "{case}: {said}");
        assert!(error.to_string().contains("[secret token]"), "{case}: {error}");
        assert_eq!(plugin.status().last_error.is_some(), case != 0, "{case}");
    }
}

#[tokio::test]
async fn a_secret_in_lifecycle_is_replaced_by_its_name() {
    let bench = Bench::new();
    write(&bench, TOKEN);
    // `init` and `check` get the setting whose name stands at 2100.
    let tell = "(call $config-get (i32.const 2100) (i32.const 5) (i32.const 256))
                (i32.store (i32.const 300) (i32.const 1))
                (i32.store (i32.const 304) (i32.load (i32.const 260)))
                (i32.store (i32.const 308) (i32.load (i32.const 264)))
                (i32.const 300)";
    for (init, check) in [(tell, super::guest::FINE), (super::guest::FINE, tell)] {
        let guest = with_setting(FIND)
            .with_core("(data (i32.const 2100) \"token\")")
            .with_lifecycle(init, check);
        let load = bench.load_bytes(&guest.bytes(), secret).await;
        let error = load.map(|_| ()).expect_err("it says no").to_string();
        assert!(error.contains("[secret token]") && !error.contains(TOKEN), "{error}");
    }
}

#[tokio::test]
async fn a_secret_in_a_metric_is_replaced_by_its_name_or_drops_it() {
    let bench = Bench::new();
    // One label, `k`, with the setting as its value; then a metric of that name.
    let guest = with_setting(
        "(i32.store (i32.const 400) (i32.const 2110)) (i32.store (i32.const 404) (i32.const 1))
         (i32.store (i32.const 408) (local.get $at)) (i32.store (i32.const 412) (local.get $len))
         (call $count (i32.const 2111) (i32.const 4) (i64.const 1) (i32.const 400) (i32.const 1))
         (call $count (local.get $at) (local.get $len) (i64.const 1) (i32.const 0) (i32.const 0))
         (call $found (local.get $at) (i32.const 0))",
    )
    .with_core("(data (i32.const 2110) \"kname\")")
    .with_metrics();
    // A name that a metric could have.
    write(&bench, "s3cr3t_Token");
    let plugin = bench.load_with(&guest, secret).await;
    body(&plugin, "token").await.expect("counted");
    let text = bench.metrics.encode();
    assert!(
        text.contains(r#"cachecluster_guest_name_total{plugin="p",k="[secret token]"} 1"#),
        "{text}"
    );
    assert!(!text.to_lowercase().contains("s3cr3t"), "{text}");
}
