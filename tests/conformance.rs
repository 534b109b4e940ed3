//! The suite passes what is right, and fails each wrong that it is there to find.

use std::{collections::BTreeMap, path::Path, time::Duration};

use cachecluster::{
    config::Wasm,
    workbench::{
        Workbench,
        conformance::{CaseReport, Profile, Suite, Verdict, run},
        project::Project,
    },
};

use crate::guest::{ECHO, Guest, guest};

/// `not-found`, without a time.
const NOT_FOUND: &str =
    "(call $clear) (i32.store8 offset=8 (global.get $RET) (i32.const 1)) (global.get $RET)";

/// How each case of `profile` went for `guest`.
fn verdicts(profile: Profile, guest: &Guest) -> BTreeMap<&'static str, (Verdict, Verdict)> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("guest.wasm");
    std::fs::write(&file, guest.bytes()).expect("written");
    let project = Project::open(&file).expect("a project");
    let wasm = Wasm { cache_dir: folder.path().join("cache"), ..Wasm::default() };
    let workbench = Workbench::start(&wasm).expect("a workbench");
    let mut settings = project.settings();
    settings.limits.cpu = Duration::from_millis(200);
    settings.limits.timeout = Duration::from_secs(5);
    let suite = Suite { profile, only: &[], project: &project, settings: &settings };
    let mut verdicts = BTreeMap::new();
    let each = |report: &CaseReport| {
        verdicts.insert(report.name, (report.warm.clone(), report.fresh.clone()));
        Ok(())
    };
    workbench.run(run(&workbench, &suite, each)).expect("the suite runs");
    verdicts
}

/// The names of the cases that failed in warm instances, and in fresh ones.
fn failures(guest: &Guest) -> (Vec<&'static str>, Vec<&'static str>) {
    let verdicts = verdicts(Profile::Contract, guest);
    let of = |pick: fn(&(Verdict, Verdict)) -> &Verdict| {
        let failed = verdicts.iter().filter(|(_, it)| matches!(pick(it), Verdict::Failed(_)));
        failed.map(|(name, _)| *name).collect()
    };
    (of(|(warm, _)| warm), of(|(_, fresh)| fresh))
}

#[test]
fn a_getter_that_is_right_fails_nothing() {
    let verdicts = verdicts(Profile::Contract, &guest(ECHO));
    for (name, (warm, fresh)) in &verdicts {
        if *name == "batch" {
            assert!(matches!(warm, Verdict::Skipped(_)), "{warm:?}");
        } else {
            assert_eq!((warm, fresh), (&Verdict::Passed, &Verdict::Passed), "{name}");
        }
    }
    assert_eq!(verdicts.len(), Profile::Contract.cases().count());
}

#[test]
fn a_trap_at_the_empty_key_is_found() {
    let body = format!("(if (i32.eqz (local.get $len)) (then unreachable)) {ECHO}");
    assert_eq!(failures(&guest(&body)), (vec!["empty-key"], vec!["empty-key"]));
}

#[test]
fn a_loop_over_a_long_key_is_found() {
    let long = "(i32.gt_u (local.get $len) (i32.const 60000))";
    let body = format!("(if {long} (then (loop $for_ever (br $for_ever)))) {ECHO}");
    assert_eq!(failures(&guest(&body)), (vec!["long-keys"], vec!["long-keys"]));
}

#[test]
fn a_trap_after_many_calls_is_found_where_instances_live() {
    let count = "(global.set $n (i32.add (global.get $n) (i32.const 1)))";
    let many = "(i32.gt_u (global.get $n) (i32.const 50))";
    let body = format!("{count} (if {many} (then unreachable)) {ECHO}");
    let guest = guest(&body).with_core("(global $n (mut i32) (i32.const 0))");
    let (warm, fresh) = failures(&guest);
    assert!(warm.contains(&"many-keys"), "{warm:?}");
    assert!(!fresh.contains(&"many-keys"), "{fresh:?}");
}

#[test]
fn an_answer_that_depends_on_the_last_one_is_found() {
    // Every second call of an instance finds nothing.
    let turn = "(global.set $n (i32.xor (global.get $n) (i32.const 1)))";
    let body = format!("{turn} (if (result i32) (global.get $n) (then {ECHO}) (else {NOT_FOUND}))");
    let guest = guest(&body).with_core("(global $n (mut i32) (i32.const 0))");
    let (warm, fresh) = failures(&guest);
    assert!(warm.contains(&"agrees") && warm.contains(&"reuse"), "{warm:?}");
    // Between instances that serve one call only, nothing is to be seen but by comparing.
    assert_eq!(fresh, ["reuse"]);
}

#[test]
fn values_that_change_by_themselves_are_told_and_not_judged() {
    let count = "(global.set $n (i64.add (global.get $n) (i64.const 1)))";
    let body = format!("{count} (call $found-number (global.get $n))");
    let guest = guest(&body).with_core("(global $n (mut i64) (i64.const 0))");
    let verdicts = verdicts(Profile::Contract, &guest);
    let (warm, fresh) = &verdicts["agrees"];
    let is_told = |it: &Verdict| matches!(it, Verdict::Skipped(why) if why.contains("changes"));
    assert!(is_told(warm), "{warm:?}");
    assert_eq!(fresh, &Verdict::Passed);
}

#[test]
fn a_batch_of_another_length_is_found() {
    let none = "(memory.fill (i32.const 256) (i32.const 0) (i32.const 16)) (i32.const 256)";
    let (warm, _) = failures(&guest(ECHO).with_batch(none));
    assert_eq!(warm, ["batch"]);
}

#[test]
fn a_getter_of_another_kind_is_no_http_getter() {
    let verdicts = verdicts(Profile::HttpGetter, &guest(ECHO));
    let passed: Vec<_> = verdicts
        .iter()
        .filter(|(_, (warm, _))| *warm == Verdict::Passed)
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(passed, ["loads"]);
    let Verdict::Failed(reason) = &verdicts["not-found"].0 else { panic!("{verdicts:?}") };
    assert!(reason.contains("found, 3 bytes where not-found is expected"), "{reason}");
}

#[test]
fn the_documentation_names_every_case() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let page = std::fs::read_to_string(page).expect("the page");
    for profile in [Profile::Contract, Profile::HttpGetter] {
        assert!(page.contains(&format!("`{}`", profile.name())));
        for (name, _) in profile.cases() {
            assert!(page.contains(&format!("`{name}`")), "docs/conformance.md lacks `{name}`");
        }
    }
}
