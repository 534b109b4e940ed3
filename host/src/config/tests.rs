use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::*;

/// Compares `actual` with the file at `path`; `UPDATE=1` writes the file instead.
pub(super) fn assert_golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
        fs::write(path, actual).expect("write the golden file");
        return;
    }
    let golden = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(golden, actual, "{} differs: `UPDATE=1 cargo test` rewrites it", path.display());
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/golden").join(name)
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect::<Vec<_>>()
        .into_iter()
}

fn read(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, Reports> {
    Config::from_str(text, "cachecluster.toml", env(pairs))
}

const SMALL: &str = "\
[plugins.my-dict]
source = \"dict.wasm\"
[groups.define]
plugin = \"my-dict\"
";

#[test]
fn reports_read_as_their_golden_files() {
    let mut files: Vec<PathBuf> = fs::read_dir(golden(""))
        .expect("list golden files")
        .map(|entry| entry.expect("read a folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 12);
    for file in files {
        let text = fs::read_to_string(&file).expect("read a bad file");
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let rendered = match Config::from_str(&text, &name, std::iter::empty()) {
            Ok(loaded) => Reports::new(Phase::Meaning, loaded.warnings).to_string(),
            Err(reports) => reports.to_string(),
        };
        assert!(!rendered.is_empty(), "{name} has nothing wrong");
        assert_golden(&file.with_extension("txt"), &format!("{rendered}\n"));
    }
}

#[test]
fn reports_about_variables_name_the_variable() {
    let reports = read(
        SMALL,
        &[
            ("CACHECLUSTER_HTTP__LISTEN", "localhost"),
            ("CACHECLUSTER_HTTP_LISTEN", "0.0.0.0:80"),
            ("CACHECLUSTER_GROUPS__DEFINE__CACHE__TTL", "5 parsecs"),
            ("CACHECLUSTER_GROUPS__DEFINE__CACHE__TTTL", "5s"),
            ("CACHECLUSTER_GROUPS__DEFINE__CACHE__TTL_MIN", "1h"),
            ("CACHECLUSTER_GROUPS__DEFINE__CACHE", "5s"),
            ("CACHECLUSTER_PLUGINS__MY_DICT__LIMITS__INSTANCES", "many"),
            ("CACHECLUSTER_PLUGINS__MY_DICT__NETWORK__TCP", "dict.org"),
            ("CACHECLUSTER_NONSENSE", ""),
            ("CACHECLUSTER___", ""),
        ],
    )
    .expect_err("everything is wrong");
    assert_golden(&golden("environment.txt"), &format!("{reports}\n"));
}

#[test]
fn the_schema_and_the_reference_are_up_to_date() {
    assert_golden(&docs("cachecluster.schema.json"), &schema_text());
    assert_golden(&docs("configuration.md"), &documentation());
}

#[test]
fn the_default_file_is_the_defaults() {
    let loaded = read(&template(), &[]).expect("the default file is good");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn every_line_of_the_default_file_is_good_without_its_comment_sign() {
    let is_setting = |line: &str| line.starts_with('[') || line.split(' ').nth(1) == Some("=");
    let text: String = template()
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| is_setting(line)).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let loaded = read(&text, &[]).unwrap_or_else(|reports| panic!("{reports}"));
    assert_eq!(loaded.config.http, Http::default());
    assert_eq!(loaded.config.groups["NAME"].cache, Caching::default());
    assert_eq!(loaded.config.plugins["NAME"].network, Network::default());
    assert_eq!(loaded.config.plugins["NAME"].limits, Limits::default());
}

#[test]
fn settings_in_force_read_back_as_themselves() {
    let loaded = read(SMALL, &[("CACHECLUSTER_HTTP__LISTEN", "0.0.0.0:80")]).expect("good");
    let text = effective(&loaded);
    assert_eq!(read(&text, &[]).expect("good").config, loaded.config);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).expect("a line");
    assert!(line("listen = \"0").ends_with("# CACHECLUSTER_HTTP__LISTEN"), "{text}");
    assert!(line("source").ends_with("# cachecluster.toml:2"), "{text}");
    assert!(line("threads").ends_with("# default"), "{text}");
}

#[test]
fn variables_win_over_the_file() {
    let loaded = read(
        "http.threads = 1\n[plugins.my-dict]\nsource = \"a.wasm\"\n",
        &[
            ("CACHECLUSTER_HTTP__THREADS", "2"),
            ("CACHECLUSTER_http__listen", "[::1]:80"),
            ("CACHECLUSTER_GROUPS__DEFINE__PLUGIN", "my-dict"),
            ("CACHECLUSTER_GROUPS__DEFINE__CACHE__TTL", "5m"),
            ("CACHECLUSTER_GROUPS__DEFINE__CACHE__TTL_JITTER", "0"),
            ("CACHECLUSTER_PLUGINS__MY_DICT__NETWORK__TCP", "a:1, b:2"),
            ("CACHECLUSTER_PLUGINS__MY_DICT__NETWORK__HTTP", "['https://a']"),
            ("CACHECLUSTER_PLUGINS__MY_DICT__CONFIG__SERVER", "a:1"),
            ("CACHECLUSTER_PLUGINS__MY_DICT__CONFIG__RETRIES", "3"),
            ("CACHECLUSTER_PLUGINS__MY_DICT__SECRETS__TOKEN", "env:API_TOKEN"),
            ("CACHECLUSTER_LOG", "debug"),
            ("CACHECLUSTER_CONFIG", "elsewhere"),
            ("HTTP__LISTEN", "x"),
        ],
    )
    .unwrap_or_else(|reports| panic!("{reports}"));
    let Config { http, log, plugins, groups, .. } = loaded.config;
    assert_eq!(http.threads, 2);
    assert_eq!(http.listen.to_string(), "[::1]:80");
    assert_eq!(log.filter, "debug");
    assert_eq!(groups["define"].cache.ttl, Duration::from_mins(5));
    assert!(groups["define"].cache.ttl_jitter.abs() < f64::EPSILON);
    let plugin = &plugins["my-dict"];
    assert_eq!(plugin.network.tcp, ["a:1", "b:2"]);
    assert_eq!(plugin.network.http, ["https://a"]);
    assert_eq!(plugin.config["server"], "a:1");
    assert_eq!(plugin.config["retries"], "3");
    assert_eq!(plugin.secrets["token"], "env:API_TOKEN");
}

#[test]
fn no_report_shows_the_value_of_a_secret() {
    for (name, value) in [
        ("CACHECLUSTER_PLUGINS__MY_DICT__SECRETS__TOKEN", "hunter2"),
        ("CACHECLUSTER_PLUGINS__MY_DICT__SECRETS", "hunter2"),
        ("CACHECLUSTER_PLUGINS__MY_DICT__SECRET__TOKEN", "hunter2"),
        ("CACHECLUSTER_PLUGINS_MY_DICT__SECRETS__TOKEN", "hunter2"),
    ] {
        let said = read(SMALL, &[(name, value)]).expect_err(name).to_string();
        assert!(said.contains(name) && !said.contains("hunter2"), "{said}");
    }
    for file in ["secrets.txt", "registries.txt"] {
        let said = fs::read_to_string(golden(file)).expect("the golden file");
        assert!(!said.contains("hunter"), "{said}");
    }
}

#[test]
fn what_a_container_platform_sets_is_left_alone() {
    let set = [
        ("CACHECLUSTER_SERVICE_HOST", "10.0.0.1"),
        ("CACHECLUSTER_SERVICE_PORT_HTTP", "80"),
        ("CACHECLUSTER_PORT", "tcp://10.0.0.1:80"),
        ("CACHECLUSTER_PORT_80_TCP_ADDR", "10.0.0.1"),
    ];
    read(SMALL, &set).expect("good");
}

#[test]
fn a_variable_that_could_mean_two_plugins_is_refused() {
    let two = "[plugins.a-b]\nsource = 'x'\n[plugins.a_b]\nsource = 'x'\n";
    let reports = read(two, &[("CACHECLUSTER_PLUGINS__A_B__SOURCE", "y")]).expect_err("two");
    assert!(reports.to_string().contains("could be `a-b` and `a_b`"), "{reports}");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = |name: &str| {
        Config::load(&folder.path().join(name), env(&[])).map(|_| ()).expect_err(name).to_string()
    };
    let missing = load("missing.toml");
    assert!(missing.contains("there is no such file"), "{missing}");
    assert!(missing.contains("cachecluster config default >"), "{missing}");
    assert!(load(".").contains("it is a folder"));
    fs::write(folder.path().join("latin1.toml"), b"# ok\n# Gr\xfc\xdfe\n").expect("write");
    assert!(load("latin1.toml").contains("is not UTF-8: line 2"));
    fs::write(folder.path().join("large.toml"), vec![b'#'; (1 << 20) + 1]).expect("write");
    assert!(load("large.toml").contains("is larger than 1MiB"));
}

#[test]
fn paths_start_from_the_files_own_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cachecluster.toml");
    fs::write(&path, "\u{feff}[http]\nthreads = 3\n").expect("write");
    let loaded = Config::load(&path, env(&[])).expect("good");
    assert_eq!(loaded.base_dir, folder.path());
    assert_eq!(loaded.path, path);
    assert_eq!(loaded.config.http.threads, 3);
}

#[test]
fn a_group_without_any_plugin_is_told_to_add_one() {
    for text in ["[groups.b]\n", "plugins = 1\n[groups.b]\n", "[plugins]\n[groups.b]\n"] {
        let reports = read(text, &[]).expect_err("no plugin").to_string();
        assert!(reports.contains("add a plugin, and name it here"), "{reports}");
    }
}

#[test]
fn many_mistakes_end_in_a_count() {
    let text = lines(60, |n| format!("key{n} = 1"));
    let reports = read(&text, &[]).expect_err("sixty mistakes");
    assert_eq!(reports.iter().count(), 60);
    assert!(reports.to_string().ends_with("error: 10 more of these"));
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn deep_and_long_files_are_refused_in_good_time() {
    for text in [
        "a.".repeat(100_000),
        "[".repeat(100_000),
        "a = [".repeat(50_000),
        "{a=".repeat(50_000),
        "a = 1\n".repeat(100_000),
        lines(80_000, |n| format!("k{n} = 1")),
        format!("a = '{}'", "x".repeat(1_000_000)),
        "\r".repeat(1000),
        format!("http = {}", "[".repeat(79)),
        lines(4_000, |n| format!("plugins.p{n}.source = 'x'\ngroups.g{n}.plugin = 'q{n}q'")),
    ] {
        read(&text, &[]).expect_err("nonsense").render(true);
    }
}

/// Pieces from which files are made that get past the parser more often than noise.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "[http]",
        "[plugins.a]",
        "[groups.b]",
        "[groups.b.cache]",
        "[[groups]]",
        "[plugins.a.config]",
        "listen",
        "ttl",
        "source",
        "plugin",
        "memory",
        "threads",
        " = ",
        "\"5s\"",
        "\"64MiB\"",
        "'a'",
        "0.0.0.0:80",
        "\"0.0.0.0:80\"",
        "1",
        "-1",
        "1e400",
        "nan",
        "0x7f",
        "true",
        "1979-05-27",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        "\n",
        "\n",
        "\r\n",
        "\t",
        "#",
        "\"",
        "\\u0000",
        "世",
        "\u{301}",
        "\u{202e}",
        "\u{7f}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_panics_the_reader(text in prop_oneof![any::<String>(), pieces()], value in any::<String>(), name in "[A-Z_]{0,20}") {
        let names = [
            format!("CACHECLUSTER_{name}"),
            format!("CACHECLUSTER_HTTP__{name}"),
            "CACHECLUSTER_HTTP__LISTEN".to_owned(),
            "CACHECLUSTER_GROUPS__B__CACHE__TTL".to_owned(),
            "CACHECLUSTER_PLUGINS__A__NETWORK__TCP".to_owned(),
        ];
        let env = names.into_iter().map(|name| (name, value.clone()));
        if let Err(reports) = Config::from_str(&text, "x.toml", env) {
            prop_assert!(!reports.render(false).is_empty());
            prop_assert!(!reports.render(true).is_empty());
        }
        if let Ok(loaded) = Config::from_str(&text, "x.toml", std::iter::empty()) {
            let again = Config::from_str(&effective(&loaded), "y.toml", std::iter::empty());
            prop_assert_eq!(again.expect("settings in force are good").config, loaded.config);
        }
    }
}
