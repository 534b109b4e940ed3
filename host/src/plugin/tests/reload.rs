//! How another version takes over, and how a bad one does not.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::guest::{Bench, FINE, Guest, body, fill, guest, settings};
use crate::{
    group::{FillError, Getter},
    plugin::{Plugin, Problem, ReloadOutcome, Reloaded, Trigger, component},
};

const BAD: &str = "(i32.store8 (i32.const 256) (i32.const 1))
    (i32.store (i32.const 260) (i32.const 2048)) (i32.store (i32.const 264) (i32.const 4))
    (i32.const 256)";
const SPIN: &str = "(loop (br 0)) unreachable";

/// A version that answers every key with `word`.
fn version(word: &str) -> Guest {
    let get = format!("(call $found (i32.const 3000) (i32.const {}))", word.len());
    guest(&get).with_core(&format!("(data (i32.const 3000) \"{word}\")"))
}

/// A version that traps on every key.
fn trapping() -> Guest {
    guest("unreachable")
}

async fn says(plugin: &Plugin, key: &str) -> String {
    let body = body(plugin, key).await.unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(body).expect("text")
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Version `one`, which no watch replaces behind the test's back.
async fn first(bench: &Bench) -> Arc<Plugin> {
    bench.load_with(&version("one"), |p| p.watch = false).await
}

#[tokio::test]
async fn a_new_version_takes_over() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let (old, number) = (plugin.digest(), plugin.status().generation);
    bench.publish(&version("two").bytes());
    let reloaded = plugin.reload(Trigger::Operator).await.expect("reloaded");
    let Reloaded::Swapped { digest, generation } = reloaded else { panic!("{reloaded:?}") };
    assert!(digest != old && digest == plugin.digest() && generation > number);
    assert_eq!(says(&plugin, "k").await, "two");
}

#[tokio::test]
async fn a_call_ends_on_the_version_it_began_with() {
    let bench = Bench::new();
    // Waits for the empty key to be asked for a clock's time, else answers at once.
    let slow = guest(
        "(local $spins i32)
         (if (local.get $len) (then (loop
           (local.set $spins (i32.add (local.get $spins) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $spins) (i32.const 100000000))))))
         (call $found (i32.const 3000) (i32.const 3))",
    )
    .with_core("(data (i32.const 3000) \"one\")");
    let plugin = bench
        .load_with(&slow, |p| {
            p.watch = false;
            p.limits.cpu = Duration::from_mins(1);
            p.limits.timeout = Duration::from_mins(1);
        })
        .await;
    bench.publish(&version("two").bytes());
    let call = tokio::spawn({
        let plugin = Arc::clone(&plugin);
        async move { says(&plugin, "slow").await }
    });
    until("the call runs", async || plugin.status().instances.busy == 1).await;
    plugin.reload(Trigger::Operator).await.expect("reloaded");
    assert_eq!(says(&plugin, "").await, "two", "new calls do not wait for the old one");
    assert_eq!(call.await.expect("no panic"), "one");
}

#[tokio::test]
async fn every_kind_of_bad_version_leaves_the_old_one_serving() {
    let bench = Bench::new();
    let plugin = bench
        .load_with(&version("one"), |p| {
            p.watch = false;
            p.limits.cpu = Duration::from_millis(100);
        })
        .await;
    let good = version("two").bytes();
    let text = version("two").text();
    let import = "(import \"acme:db/query@1.0.0\" (instance (export \"f\" (func))))";
    let bad = [
        ("empty", Vec::new()),
        ("text file", b"not wasm".to_vec()),
        ("core WebAssembly module", wat::parse_str("(module)").expect("a module")),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("track 0.1", wat::parse_str(text.replace("@0.1.0", "@0.2.0")).expect("a component")),
        ("acme:db/query@1.0.0", version("two").with_component(import).bytes()),
        ("does not export", wat::parse_str("(component)").expect("a component")),
        ("lifecycle.init", version("two").with_lifecycle(BAD, FINE).bytes()),
        ("lifecycle.check", version("two").with_lifecycle(FINE, BAD).bytes()),
        ("limits.cpu", version("two").with_lifecycle(SPIN, FINE).bytes()),
        ("limits.memory", version("two").pages(100).bytes()),
    ];
    for (number, (why, bytes)) in bad.iter().enumerate() {
        bench.publish(bytes);
        let refused = plugin.reload(Trigger::Operator).await.expect_err(why).to_string();
        assert!(refused.contains(why), "`{why}` is not in: {refused}");
        assert_eq!(says(&plugin, "k").await, "one");
        let status = plugin.status().reload.last.expect("a report");
        assert_eq!(status.outcome, ReloadOutcome::Refused);
        assert!(status.message.expect("a reason").contains(why));
        let counted = bench.metrics.plugin("p").refused.get();
        assert_eq!(counted, number as u64 + 1);
    }
    bench.publish(&good);
    plugin.reload(Trigger::Operator).await.expect("reloaded");
    assert_eq!(says(&plugin, "k").await, "two");
}

#[tokio::test]
async fn a_version_must_answer_its_probes() {
    let bench = Bench::new();
    let settled = |p: &mut crate::config::Plugin| {
        p.watch = false;
        p.probe.keys = vec!["a".to_owned()];
    };
    let plugin = bench.load_with(&version("one"), settled).await;
    bench.publish(&trapping().bytes());
    let refused = plugin.reload(Trigger::Operator).await.expect_err("refused").to_string();
    assert!(refused.contains("`a`") && refused.contains("probe.keys"), "{refused}");
    assert_eq!(says(&plugin, "k").await, "one");
}

#[tokio::test]
async fn a_file_with_the_same_content_is_not_loaded_again() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let number = plugin.status().generation;
    bench.publish(&version("one").bytes());
    let reloaded = plugin.reload(Trigger::Operator).await.expect("reloaded");
    assert_eq!(reloaded, Reloaded::Unchanged { digest: plugin.digest() });
    assert_eq!(plugin.status().generation, number);
}

#[tokio::test]
async fn an_operators_reload_reads_secrets_anew() {
    let bench = Bench::new();
    let secret = bench.file().with_file_name("token");
    std::fs::write(&secret, "first-token").expect("written");
    let plugin = bench
        .load_with(&version("one"), |p| {
            p.watch = false;
            p.secrets.insert("token".to_owned(), format!("file:{}", secret.display()));
        })
        .await;
    let token = || plugin.generation().environment.secrets.get("token").map(str::to_owned);
    std::fs::write(&secret, "second-token").expect("written");
    plugin.reload(Trigger::Watch).await.expect("reloaded");
    assert_eq!(token().as_deref(), Some("first-token"));
    plugin.reload(Trigger::Operator).await.expect("reloaded");
    assert_eq!(token().as_deref(), Some("second-token"));
    std::fs::remove_file(&secret).expect("removed");
    let refused = plugin.reload(Trigger::Operator).await.expect_err("gone").to_string();
    assert!(refused.contains("secrets.token"), "{refused}");
    assert_eq!(token().as_deref(), Some("second-token"));
}

#[tokio::test]
async fn a_changed_file_is_noticed_however_it_changes() {
    let bench = Bench::new();
    let plugin = bench.load(&version("one")).await;
    bench.publish(&version("two").bytes());
    until("a rename is noticed", async || says(&plugin, "k").await == "two").await;
    std::fs::write(bench.file(), version("three").bytes()).expect("written");
    until("a write in place is noticed", async || says(&plugin, "k").await == "three").await;
    std::fs::remove_file(bench.file()).expect("removed");
    let is_missed = async || plugin.status().reload.last.is_some_and(|it| it.message.is_some());
    until("that it is gone is noticed", is_missed).await;
    assert_eq!(says(&plugin, "k").await, "three");
    bench.publish(&version("four").bytes());
    until("that it is back is noticed", async || says(&plugin, "k").await == "four").await;
}

#[tokio::test]
async fn of_versions_in_rapid_succession_the_last_one_stays() {
    let bench = Bench::new();
    let plugin = bench.load(&version("00")).await;
    for number in 1..=40 {
        bench.publish(&version(&format!("{number:02}")).bytes());
        // Long enough for some of them to be noticed, too short to load each.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (mut last, digest) = (String::new(), component::digest(&version("40").bytes()));
    until("the last one serves", async || {
        let now = says(&plugin, "k").await;
        assert!(now >= last, "{now} came after {last}");
        last = now;
        last == "40"
    })
    .await;
    // Those that were overtaken were neither loaded nor reported.
    let swapped = bench.metrics.plugin("p").swapped.get();
    assert!(swapped < 20, "{swapped} versions were loaded");
    assert_eq!(bench.metrics.plugin("p").refused.get(), 0);
    assert_eq!(plugin.digest(), digest);
}

#[tokio::test]
async fn plugins_are_replaced_at_the_same_time() {
    let bench = Bench::new();
    let folder = bench.file().parent().expect("a folder").to_owned();
    let file = |name: &str| folder.join(format!("{name}.wasm"));
    let mut plugins = Vec::new();
    for name in ["p", "q", "r"] {
        std::fs::write(file(name), version("one").bytes()).expect("written");
        let settings = settings(|p| p.source = file(name));
        plugins.push(bench.host.load(name, &settings, &folder).await.expect("loaded"));
    }
    // One of them by a version that never comes to an end.
    std::fs::write(file("p"), version("two").bytes()).expect("written");
    std::fs::write(file("q"), version("two").with_lifecycle(SPIN, FINE).bytes()).expect("written");
    std::fs::write(file("r"), version("three").bytes()).expect("written");
    let reload = |plugin: &Arc<Plugin>| {
        let plugin = Arc::clone(plugin);
        tokio::spawn(async move { plugin.reload(Trigger::Operator).await.map(drop) })
    };
    let reloads: Vec<_> = plugins.iter().map(reload).collect();
    for (reload, is_good) in reloads.into_iter().zip([true, false, true]) {
        assert_eq!(reload.await.expect("no panic").is_ok(), is_good);
    }
    for (plugin, word) in plugins.iter().zip(["two", "one", "three"]) {
        assert_eq!(says(plugin, "k").await, word);
    }
}

#[tokio::test]
async fn what_a_killed_process_left_half_compiled_is_compiled_anew() {
    let bench = Bench::new();
    drop(first(&bench).await);
    let folder = bench.file().with_file_name("cache");
    // What was compiled: notes on how often it was used lie beside it.
    let file = files(&folder).into_iter().max_by_key(|path| size(path)).expect("a file");
    let whole = std::fs::read(&file).expect("what was compiled");
    for damage in [
        (|bytes: &[u8]| bytes[..bytes.len() / 2].to_vec()) as fn(&[u8]) -> Vec<u8>,
        |bytes| bytes[..bytes.len() - 1].to_vec(),
        |_| Vec::new(),
        |bytes| vec![0x5a; bytes.len()],
    ] {
        std::fs::write(&file, damage(&whole)).expect("written");
        // Another host, as after a restart.
        let bench = Bench::over(&folder);
        let plugin = first(&bench).await;
        assert_eq!(says(&plugin, "k").await, "one");
        assert_eq!(size(&file), whole.len() as u64, "it was not compiled anew");
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// All files in `folder` and below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_swapped_link_to_a_folder_is_noticed() {
    let bench = Bench::new();
    let folder = bench.file().parent().expect("a folder").to_owned();
    for (name, word) in [("..one", "one"), ("..two", "two")] {
        std::fs::create_dir(folder.join(name)).expect("made");
        std::fs::write(folder.join(name).join("p.wasm"), version(word).bytes()).expect("written");
    }
    symlink("..one", folder.join("..data")).expect("a link");
    symlink("..data/p.wasm", folder.join("p.wasm")).expect("a link");
    let plugin = bench.load_with(&version("none"), |p| p.source = "p.wasm".into()).await;
    assert_eq!(says(&plugin, "k").await, "one");
    symlink("..two", folder.join("..data_tmp")).expect("a link");
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("renamed");
    until("the swap is noticed", async || says(&plugin, "k").await == "two").await;
}

#[tokio::test]
async fn a_version_that_faults_on_several_keys_is_taken_back() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let good = plugin.digest();
    bench.publish(&trapping().bytes());
    plugin.reload(Trigger::Operator).await.expect("it loads");
    let bad = plugin.digest();
    assert!(plugin.status().reload.on_probation);
    for key in ["a", "b", "c"] {
        assert!(plugin.load(fill(key)).await.is_err());
    }
    assert_eq!(plugin.digest(), good);
    assert_eq!(says(&plugin, "a").await, "one");
    let status = plugin.status().reload;
    assert!(!status.on_probation);
    assert_eq!(status.quarantined, std::slice::from_ref(&bad));
    assert_eq!(status.last.expect("a report").outcome, ReloadOutcome::RolledBack);
    assert_eq!(bench.metrics.plugin("p").rolled_back.get(), 1);

    // The same file again is not tried, unless somebody says so.
    let refused = plugin.reload(Trigger::Watch).await.expect_err("in quarantine");
    assert!(matches!(refused.problem, Problem::Quarantined { .. }), "{refused}");
    assert_eq!(plugin.digest(), good);
    plugin.reload(Trigger::Operator).await.expect("an operator may");
    assert_eq!(plugin.digest(), bad);
}

#[tokio::test]
async fn one_poisonous_key_takes_no_version_back() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let poisonous = guest(
        "(if (i32.eqz (local.get $len)) (then unreachable))
         (call $found (i32.const 3000) (i32.const 3))",
    )
    .with_core("(data (i32.const 3000) \"two\")");
    bench.publish(&poisonous.bytes());
    plugin.reload(Trigger::Operator).await.expect("it loads");
    for _ in 0..20 {
        assert!(plugin.load(fill("")).await.is_err());
        assert_eq!(says(&plugin, "k").await, "two");
    }
}

#[tokio::test]
async fn an_origin_that_is_down_takes_no_version_back() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    bench.publish(&guest("(call $fail (i32.const 2) (i32.const 2048) (i32.const 4))").bytes());
    plugin.reload(Trigger::Operator).await.expect("it loads");
    let digest = plugin.digest();
    for key in 0..20 {
        let failed = plugin.load(fill(key.to_string())).await.expect_err("down");
        let is_down = matches!(failed, FillError::Unavailable { .. });
        assert!(is_down || matches!(failed, FillError::NotAsked { .. }), "{failed}");
    }
    assert_eq!(plugin.digest(), digest);
}

#[tokio::test]
async fn a_version_that_passes_its_probation_is_kept_for_a_restart() {
    let bench = Bench::new();
    let short = |p: &mut crate::config::Plugin| p.probation = Duration::from_millis(10);
    let plugin = bench.load_with(&version("one"), short).await;
    bench.publish(&version("two").bytes());
    until("two serves", async || says(&plugin, "k").await == "two").await;
    until("it has passed", async || !plugin.status().reload.on_probation).await;
    let good = plugin.digest();
    until("it is kept", async || kept(&bench, &good)).await;
    drop(plugin);
    let bench = bench.restarted();
    let plugin = bench.load_bytes(b"bad", short).await.expect("the last good version");
    assert_eq!((plugin.digest(), says(&plugin, "k").await), (good, "two".to_owned()));
    let report = plugin.status().reload.last.expect("a report");
    assert_eq!(report.outcome, ReloadOutcome::LastGood);
    // A good file is taken as soon as it is there.
    bench.publish(&version("three").bytes());
    until("three serves", async || says(&plugin, "k").await == "three").await;
}

/// Whether the component with this digest is the last good one on disk.
fn kept(bench: &Bench, digest: &str) -> bool {
    let place = bench.host.loader.shelf.place("p", &bench.file());
    place.good().is_some_and(|source| source.digest == digest)
}

/// Whether it is noted on disk that this digest was taken back.
fn noted(bench: &Bench, digest: &str) -> bool {
    bench.host.loader.shelf.place("p", &bench.file()).quarantine().contains(digest)
}

/// Forgets the last good version.
fn lose(bench: &Bench) {
    let state = bench.host.loader.shelf.place("p", &bench.file());
    std::fs::remove_dir_all(state.directory.as_ref().expect("a directory")).expect("removed");
}

#[tokio::test]
async fn a_bad_version_that_nothing_can_replace_serves_on_and_says_so() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let good = plugin.digest();
    until("it is kept", async || kept(&bench, &good)).await;
    drop(plugin);
    let bench = bench.restarted();
    let plugin = bench.load_bytes(&trapping().bytes(), |_| ()).await.expect("it loads");
    let bad = plugin.digest();
    lose(&bench);
    for key in ["a", "b", "c"] {
        assert!(plugin.load(fill(key)).await.is_err());
    }
    let stuck = || plugin.status().reload.last.is_some_and(|it| it.outcome == ReloadOutcome::Stuck);
    until("the status says so", async || stuck()).await;
    assert_eq!(plugin.digest(), bad);
    assert_eq!(bench.metrics.plugin("p").rolled_back.get(), 0);
}

#[tokio::test]
async fn a_restart_does_not_bring_back_what_was_taken_back() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let good = plugin.digest();
    until("it is kept", async || kept(&bench, &good)).await;
    bench.publish(&trapping().bytes());
    plugin.reload(Trigger::Operator).await.expect("it loads");
    let bad = plugin.digest();
    for key in ["a", "b", "c"] {
        assert!(plugin.load(fill(key)).await.is_err());
    }
    assert_eq!(plugin.digest(), good);
    until("that is on disk", async || noted(&bench, &bad)).await;
    drop(plugin);
    let bench = bench.restarted();
    let plugin = bench.load_bytes(&trapping().bytes(), |_| ()).await.expect("the good one");
    assert_eq!(plugin.digest(), good);
}

#[tokio::test]
async fn a_bad_version_that_a_restart_brought_in_gives_way_to_the_last_good_one() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let good = plugin.digest();
    until("it is kept", async || kept(&bench, &good)).await;
    drop(plugin);
    let bench = bench.restarted();
    let plugin = bench.load_bytes(&trapping().bytes(), |_| ()).await.expect("it loads");
    assert_ne!(plugin.digest(), good);
    for key in ["a", "b", "c"] {
        assert!(plugin.load(fill(key)).await.is_err());
    }
    until("the good one serves", async || plugin.digest() == good).await;
    assert_eq!(says(&plugin, "k").await, "one");
}

#[tokio::test]
async fn other_settings_are_tried_before_they_count() {
    let bench = Bench::new();
    let echo = guest("(call $found (local.get $key) (local.get $len))");
    let plugin = bench.load_with(&echo, |p| p.watch = false).await;
    let (digest, folder) = (plugin.digest(), bench.file().parent().expect("a folder").to_owned());
    let mut other = settings(|p| p.limits.value = crate::config::ByteSize::kib(1));
    let prepared = plugin.prepare(&other, &folder).await.expect("fine");
    let before = plugin.status().limits.value;
    assert_ne!(before, other.limits.value, "nothing has changed yet");
    plugin.install(prepared);
    assert_eq!(plugin.status().limits.value, other.limits.value);
    assert_eq!(plugin.digest(), digest);
    assert!(!plugin.status().reload.on_probation, "the code is the same");

    other.limits.memory = crate::config::ByteSize::kib(64);
    let refused = plugin.prepare(&other, &folder).await.map(drop).expect_err("too little");
    assert!(refused.to_string().contains("limits.memory"), "{refused}");
    assert_eq!(says(&plugin, "k").await, "k");
}

#[tokio::test]
async fn a_pinned_digest_lets_no_other_version_in() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let digest = plugin.digest();
    let folder = bench.file().parent().expect("a folder").to_owned();
    let pinned = settings(|p| p.digest = Some(digest.clone()));
    let prepared = plugin.prepare(&pinned, &folder).await.expect("the same");
    plugin.install(prepared);
    bench.publish(&version("two").bytes());
    let refused = plugin.reload(Trigger::Operator).await.expect_err("another").to_string();
    assert!(refused.contains("pin"), "{refused}");
    // The pin is moved to what the file has.
    let moved = settings(|p| {
        p.digest = Some(component::digest(&version("two").bytes()));
    });
    let prepared = plugin.prepare(&moved, &folder).await.expect("as pinned");
    plugin.install(prepared);
    assert_eq!(says(&plugin, "k").await, "two");
}

#[tokio::test]
async fn whoever_asks_is_told_of_a_swap() {
    let bench = Bench::new();
    let plugin = first(&bench).await;
    let (tell, mut told) = tokio::sync::mpsc::channel(4);
    plugin.on_swap(Box::new(move |swapped| _ = tell.try_send(swapped.epoch_changed)));
    bench.publish(&version("two").bytes());
    plugin.reload(Trigger::Operator).await.expect("reloaded");
    assert_eq!(told.recv().await, Some(false));
    let folder = bench.file().parent().expect("a folder").to_owned();
    let other = settings(|p| p.cache_epoch = "2".to_owned());
    let prepared = plugin.prepare(&other, &folder).await.expect("fine");
    plugin.install(prepared);
    assert_eq!(told.recv().await, Some(true));
}

#[tokio::test]
async fn versions_that_were_replaced_leave_nothing_behind() {
    let bench = Bench::new();
    let settled = |p: &mut crate::config::Plugin| {
        p.watch = false;
        p.probation = Duration::ZERO;
    };
    let plugin = bench.load_with(&version("0"), settled).await;
    for round in 1..=20 {
        bench.publish(&version(&round.to_string()).bytes());
        plugin.reload(Trigger::Operator).await.expect("reloaded");
        assert_eq!(says(&plugin, "k").await, round.to_string());
    }
    let metrics = bench.metrics.plugin("p");
    assert_eq!((metrics.swapped.get(), metrics.generations.get()), (20, 1));
    let pool = bench.host.loader.engine.pooling_allocator_metrics().expect("a pool");
    assert_eq!(pool.component_instances(), 1, "the one that is kept warm");
}
