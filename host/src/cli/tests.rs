use clap::{CommandFactory as _, error::ErrorKind as Usage};

use super::*;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["cachecluster"].iter().chain(arguments))
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn verbs_are_parsed() {
    assert!(matches!(parse(&["serve"]).expect("a verb").verb, Verb::Serve));
    assert!(matches!(
        parse(&["reload", "--plugin", "dict", "--admin", "127.0.0.1:9081"]).expect("a verb").verb,
        Verb::Reload(_)
    ));
    assert!(matches!(parse(&["check"]).expect("a verb").verb, Verb::Check));
    assert!(matches!(
        parse(&["config", "show"]).expect("a verb").verb,
        Verb::Config(config::What::Show)
    ));
    assert!(matches!(
        parse(&["config", "import", "cachecluster.ini"]).expect("a verb").verb,
        Verb::Config(config::What::Import { file }) if file == Path::new("cachecluster.ini")
    ));
    assert!(matches!(
        parse(&["demo", "--port", "80", "--delay", "1s"]).expect("a verb").verb,
        Verb::Demo(_)
    ));
}

#[test]
fn the_file_may_be_named_before_and_after_the_verb() {
    for arguments in [
        ["--config", "x.toml", "serve"],
        ["serve", "--config", "x.toml"],
        ["serve", "-c", "x.toml"],
    ] {
        assert_eq!(parse(&arguments).expect("a verb").config, Some("x.toml".into()));
    }
}

#[test]
fn nothing_at_all_is_a_usage_error_with_help() {
    let error = parse(&[]).expect_err("no verb");
    assert_eq!(error.kind(), Usage::DisplayHelpOnMissingArgumentOrSubcommand);
    assert_eq!(run(["cachecluster".into()]), Exit::Usage);
}

#[test]
fn a_misspelt_verb_gets_a_suggestion() {
    let error = parse(&["serv"]).expect_err("no such verb").to_string();
    assert!(error.contains("'serve'"), "{error}");
    assert!(parse(&["demo", "--delay", "1h"]).is_err());
    assert!(parse(&["demo", "--port", "70000"]).is_err());
}

#[test]
fn settings_end_in_their_own_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "[http]\nlistn = 3\n").expect("write");
    for verb in [&["check"][..], &["serve"], &["config", "show"]] {
        let arguments = ["cachecluster", "--config"].map(OsString::from);
        let verb = verb.iter().map(OsString::from);
        let arguments = arguments.into_iter().chain([path.clone().into()]).chain(verb);
        assert_eq!(run(arguments), Exit::BadConfig);
    }
}

#[test]
fn a_reader_that_hangs_up_is_no_failure() {
    assert!(is_broken_pipe(&io::Error::from(ErrorKind::BrokenPipe).into()));
    assert!(!is_broken_pipe(&io::Error::from(ErrorKind::NotFound).into()));
}
