use std::{collections::BTreeMap, fs, path::PathBuf};

use proptest::prelude::*;

use super::{parse::Entry, *};
use crate::config::{Config, Loaded, effective, tests::assert_golden};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config/golden/ini").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(golden(name)).expect("a sample")
}

fn read(text: &str) -> Result<Loaded, Reports> {
    Config::from_ini(text, "cachecluster.ini", std::iter::empty())
}

fn good(text: &str) -> Loaded {
    read(text).unwrap_or_else(|reports| panic!("{reports}\n{text}"))
}

fn entries(text: &str) -> Vec<Entry> {
    let file = parse::file(text, &Source::file("x.ini", text));
    assert_eq!(file.faults, [], "{text}");
    file.entries
}

/// The value of the first key of `text`.
fn value(text: &str) -> String {
    entries(text).swap_remove(0).value.text
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn both_samples_of_the_ancestor_mean_what_is_documented() {
    for (sample, service) in [("readme.ini", "web"), ("example.ini", "test")] {
        let config = good(&text(sample)).config;
        assert_eq!(config.peers_listen().to_string(), "0.0.0.0:9080", "{sample}");
        assert_eq!(config.cluster.port, 9999, "{sample}");
        assert_eq!(config.cluster.bind_address().to_string(), "0.0.0.0", "{sample}");
        // From the metadata of the instance, whatever the file says.
        assert_eq!((config.matching.project.as_str(), config.matching.zone.as_str()), ("", ""));
        assert_eq!(config.matching.network_interface, "nic0", "{sample}");
        assert_eq!(config.matching.tags, ["http-server"], "{sample}");
        assert_eq!(config.meta, strings(&[("service", service)]), "{sample}");
        assert_eq!(config.discovery.gce.enabled, Some(true), "{sample}");
        // Everything else is as it is without a file.
        let rest = Config {
            peers: Config::default().peers,
            cluster: Config::default().cluster,
            matching: Config::default().matching,
            meta: BTreeMap::new(),
            discovery: Config::default().discovery,
            ..config
        };
        assert_eq!(rest, Config::default(), "{sample}");
    }
}

#[test]
fn what_is_not_set_has_the_customary_ports() {
    let config = good("").config;
    assert_eq!(config.peers_listen().to_string(), "0.0.0.0:9080");
    assert_eq!(config.cluster.port, 9999);
    assert!(config.cluster.insecure && config.cluster.is_on());
    assert_eq!(config.discovery.gce.enabled, Some(true));
}

#[test]
fn files_and_their_reports_are_as_their_golden_files() {
    let mut files: Vec<PathBuf> = fs::read_dir(golden(""))
        .expect("list golden files")
        .map(|entry| entry.expect("read a folder").path())
        .filter(|path| is_one(path))
        .collect();
    files.sort();
    assert!(files.len() >= 10);
    for file in files {
        let text = fs::read_to_string(&file).expect("read a file");
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let said = match Config::from_ini(&text, &name, std::iter::empty()) {
            Ok(loaded) => {
                let old = Old::read(&text, &name).expect("it was read before");
                assert_golden(&file.with_extension("toml"), old.toml());
                Reports::new(Phase::Meaning, loaded.warnings).to_string()
            }
            Err(reports) => reports.to_string(),
        };
        assert_golden(&file.with_extension("txt"), &format!("{said}\n"));
    }
}

#[test]
fn values_are_cut_as_the_ancestor_cuts_them() {
    for (line, expected) in [
        ("k = v", "v"),
        ("k=v", "v"),
        ("k : v", "v"),
        ("k = v:w=x", "v:w=x"),
        ("  k = v  \r\n", "v"),
        ("k =", ""),
        ("k = \n", ""),
        ("Env=prod#1", "prod"),
        ("Env=prod;1", "prod"),
        ("k = # all of it", ""),
        ("k = \"a b\"", "a b"),
        ("k = 'a b'", "a b"),
        ("k = \"a#b\"", "\"a"),
        ("k = \"a\"b\"", "\"a\"b\""),
        ("k = \"a\" # b", "a"),
        ("k = \"a\", \"b\"", "\"a\", \"b\""),
        ("k = \"\"", "\"\""),
        ("k = \"x\"", "x"),
        ("k = `a#b;c`", "a#b;c"),
        ("k = `a` # b", "a"),
        ("k = `a` # it`s", "a` # it"),
        ("k = ` a `", " a "),
        ("k = `a\nb\n  c`", "a\nb\n  c"),
        ("k = \"\"\"a # \"b\" \"\"\"", "a # \"b\" "),
        ("k = \"\"\"a\nb\"\"\" # c", "a\nb"),
        ("k = a \\\nb", "a b"),
        ("k = a \\\n  b\\\n c\nl = d", "a bc"),
        ("k = a\\\n\nl = d", "a"),
        ("k = a\\", "a"),
        ("k = a # b \\\nc", "a # b c"),
    ] {
        assert_eq!(value(line), expected, "{line:?}");
    }
}

#[test]
fn keys_are_cut_as_the_ancestor_cuts_them() {
    for (line, expected) in [
        ("a b = v", "a b"),
        ("PORT = v", "PORT"),
        ("\"a=b\" = v", "a=b"),
        ("`a:b` : v", "a:b"),
        ("\"\"\"a\"b\"\"\" = v", "a\"b"),
        ("\" a \" = v", "a"),
    ] {
        let entry = entries(line).swap_remove(0);
        assert_eq!((entry.key.text.as_str(), entry.value.text.as_str()), (expected, "v"), "{line}");
    }
}

#[test]
fn a_setting_is_in_the_section_above_it() {
    let all = entries("a=0\n[one]\na=1\n\n ; [two]\n[two] # a comment\na=2\n[one]\nb=3\n");
    let all: Vec<_> = all
        .iter()
        .map(|entry| (entry.section.as_str(), entry.key.text.as_str(), entry.value.text.as_str()))
        .collect();
    assert_eq!(all, [("", "a", "0"), ("one", "a", "1"), ("two", "a", "2"), ("one", "b", "3")]);
}

#[test]
fn pieces_say_where_they_stand() {
    let text = "[s]\n key = \"a\" # b\n`k` : `c\nd`\n";
    for entry in entries(text) {
        assert_eq!(text[entry.key.span], entry.key.text);
        assert_eq!(text[entry.value.span], entry.value.text);
    }
}

#[test]
fn sections_that_come_again_are_one_and_the_last_value_counts() {
    let loaded = good(&text("again.ini"));
    assert_eq!(loaded.config.cluster.port, 9997);
    assert_eq!(loaded.config.meta, strings(&[("service", "api")]));
}

#[test]
fn the_environment_wins_over_the_file() {
    let env = [("CACHECLUSTER_CLUSTER__PORT", "9000"), ("CACHECLUSTER_META__SERVICE", "api")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = Config::from_ini(&text("readme.ini"), "x.ini", env.into_iter()).expect("good");
    assert_eq!(loaded.config.cluster.port, 9000);
    assert_eq!(loaded.config.meta, strings(&[("service", "api")]));
}

#[test]
fn a_cluster_that_is_given_a_key_is_not_open() {
    let env = |pairs: &[(&str, &str)]| strings(pairs).into_iter();
    let key = ("CACHECLUSTER_CLUSTER__KEY_FILE", "key");
    let loaded = Config::from_ini(&text("readme.ini"), "x.ini", env(&[key])).expect("good");
    assert!(!loaded.config.cluster.insecure && loaded.config.cluster.has_key());
    assert!(loaded.warnings.iter().all(|report| report.title() != translate::OPEN));
    assert_eq!(loaded.origin(&["cluster", "insecure"]), None);
    let open = ("CACHECLUSTER_CLUSTER__INSECURE", "true");
    let both = Config::from_ini(&text("readme.ini"), "x.ini", env(&[key, open]));
    assert!(both.expect_err("both").to_string().contains("a cluster that has a key"));
    let without = good(&text("readme.ini"));
    assert!(without.warnings.iter().any(|report| report.title() == translate::OPEN));
}

#[test]
fn settings_in_force_name_the_lines_of_the_file() {
    let shown = effective(&good(&text("readme.ini")));
    for (setting, line) in [
        ("listen = \"0.0.0.0:9080\"", 2),
        ("port = 9999", 5),
        ("network_interface = \"nic0\"", 11),
        ("tags = [\"http-server\"]", 12),
        ("service = \"web\"", 15),
        ("insecure = true", 4),
        ("enabled = true", 8),
    ] {
        let place = format!("# cachecluster.ini:{line}");
        let said = shown.lines().find(|it| it.starts_with(setting)).expect(setting);
        assert!(said.ends_with(&place), "{said}");
    }
}

#[test]
fn rules_of_this_program_speak_of_the_lines_of_the_file() {
    let said = read("[match]\n\ntags = cache, Web\n").expect_err("a tag").to_string();
    assert!(said.contains("cachecluster.ini:3:8"), "{said}");
    let said = read("[cache]\nport = 9081\n[cluster]\nport = 9081\n").expect_err("a port");
    assert!(said.to_string().contains("cachecluster.ini:4:8"), "{said}");
}

#[test]
fn a_file_is_the_ancestors_by_its_extension() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cachecluster.INI");
    fs::write(&path, "\u{feff}[cluster]\nport = 9000\n").expect("write");
    let loaded = Config::load(&path, std::iter::empty()).expect("good");
    assert_eq!((loaded.config.cluster.port, loaded.base_dir), (9000, folder.path().to_owned()));
    let (toml, warnings) = Config::import(&path).expect("good");
    assert!(toml.contains("port = 9000") && !warnings.is_empty(), "{toml}");
    let missing = folder.path().join("other.toml");
    fs::write(missing.with_extension("ini"), "").expect("write");
    let said = Config::load(&missing, std::iter::empty()).expect_err("missing").to_string();
    assert!(said.contains("other.ini` translates it") || said.contains("config import"), "{said}");
}

#[test]
fn long_files_are_refused_in_good_time() {
    let line = |n: usize| format!("k{n} = 1\n");
    let one_value = "k = \\\n".repeat(150_000);
    assert_eq!(good(&one_value).config.cluster.port, 9999);
    for text in [
        (0..90_000).map(line).collect::<String>(),
        format!("[meta]\n{}", (0..90_000).map(line).collect::<String>()),
        "[a]\n".repeat(200_000),
        "[".repeat(1_000_000),
        format!("k = `{}", "\n".repeat(900_000)),
    ] {
        read(&text).expect_err("nonsense").render(true);
    }
    // One setting may be long.
    let tags = vec!["a"; 1_000].join(",");
    assert_eq!(entries(&format!("tags = {tags}")).len(), 1);
}

/// One line that sets `key`, written in one of the ways that mean `value`.
fn line(key: &'static str, value: String) -> impl Strategy<Value = String> {
    let sign = prop::sample::select(vec!["=", " = ", ":", " : ", "=\t"]);
    let ways = prop::sample::select(vec!["", "`", "\"\"\"", "\"", "'"]);
    let tail = prop::sample::select(vec!["", " ", " # a = b", ";c", " ; `d"]);
    let lead = prop::sample::select(vec!["", "  ", "\t"]);
    (lead, sign, ways, tail).prop_map(move |(lead, sign, quote, tail)| {
        // What the bare ways and the single quotes cannot say goes into backquotes.
        let is_bare = !value.contains(['#', ';', '"', '\'', '`', '\\']) && value.trim() == value;
        let (quote, tail) = match quote {
            "\"" | "'" if value.is_empty() => ("", ""),
            "`" => ("`", tail.trim_matches(['`', 'd'])),
            quote if is_bare => (quote, tail),
            _ => ("`", ""),
        };
        format!("{lead}{key}{sign}{quote}{value}{quote}{tail}\n")
    })
}

/// A file, with what it means: the ports, the interface, the tags and a label.
fn files() -> impl Strategy<Value = (String, u16, u16, String, Vec<String>, String)> {
    let noise =
        prop::sample::select(vec!["", "# a comment\n", "; x = y\n\n", "[unheard]\nof = 1\n"]);
    let tags = prop::collection::vec("[a-z][a-z0-9-]{0,8}[a-z]", 1..5);
    let meta = "[ -_a-~äé]{0,12}".prop_filter("quotes alone are refused", |text| {
        !matches!(text.as_str(), "\"\"" | "''") && !text.contains('`')
    });
    (1..=4_000_u16, 10_000..=u16::MAX, 0..8_u8, tags, meta, noise).prop_flat_map(
        |(peers, gossip, nic, tags, meta, noise)| {
            let nic = format!("nic{nic}");
            let lines = (
                line("port", peers.to_string()),
                line("port", gossip.to_string()),
                line("network_interface", nic.clone()),
                line("tags", tags.join(" , ")),
                line("service", meta.clone()),
            );
            lines.prop_map(move |(one, two, three, four, five)| {
                let text = format!(
                    "{noise}[cache]\n{one}{noise}[match]\n{three}[cluster] # c\n{two}[match]\n\
                     {four}{noise}[meta]\n{five}"
                );
                (text, peers, gossip, nic.clone(), tags.clone(), meta.clone())
            })
        },
    )
}

/// Pieces from which files are made that get past the parser more often than noise.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "[cache]\n",
        "[cluster]\n",
        "[match]\n",
        "[meta]\n",
        "[",
        "]",
        "port",
        "tags",
        "service",
        "network_interface",
        "project",
        " = ",
        ":",
        "9080",
        "0",
        "a,b",
        "nic0",
        "`",
        "\"",
        "\"\"\"",
        "'",
        "\\",
        "\n",
        "\n",
        "\r\n",
        "#",
        ";",
        "-",
        "%(x)s",
        "世",
        "\u{301}",
        "\u{202e}",
        "\u{0}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_way_to_write_a_file_means_the_same(
        (text, peers, gossip, nic, tags, meta) in files()
    ) {
        let loaded = read(&text);
        let config = loaded.map_err(|reports| TestCaseError::fail(format!("{reports}\n{text}")))?.config;
        prop_assert_eq!(config.peers_listen().port(), peers);
        prop_assert_eq!(config.cluster.port, gossip);
        prop_assert_eq!(config.matching.network_interface, nic);
        prop_assert_eq!(config.matching.tags, tags);
        prop_assert_eq!(&config.meta["service"], &meta);
    }

    #[test]
    fn an_imported_file_has_the_same_settings((text, ..) in files()) {
        let old = Old::read(&text, "a\nb.ini").expect("it is good");
        let toml = Config::from_str(old.toml(), "x.toml", std::iter::empty());
        prop_assert_eq!(toml.expect("it is good").config, good(&text).config);
    }

    #[test]
    fn no_text_panics_the_reader(text in prop_oneof![any::<String>(), pieces()]) {
        match read(&text) {
            Err(reports) => {
                prop_assert!(!reports.render(false).is_empty());
                prop_assert!(!reports.render(true).is_empty());
            }
            Ok(loaded) => {
                let old = Old::read(&text, "x.ini").expect("it was good");
                let toml = Config::from_str(old.toml(), "x.toml", std::iter::empty());
                prop_assert_eq!(toml.expect("it is good").config, loaded.config);
                loaded.warnings.iter().for_each(|report| assert!(!report.render(true).is_empty()));
            }
        }
    }
}
