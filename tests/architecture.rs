//! Holds the arrows of ARCHITECTURE.md: who may import whom.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What the modules of floor 0 may import: nothing but the value they hold.
const FLOOR_0: &[&str] = &["value"];
/// What the modules of floor 3 may import: everything below, and not one another.
const BELOW_3: &[&str] = &[
    "value", "store", "flight", "failures", "breaker", "ring", "wire", "config", "metrics", "group",
];

/// Each module of the library and the modules it may name. A module that is not here
/// fails the test, so that it is given a floor when it is made.
const ARROWS: &[(&str, &[&str])] = &[
    ("value", &[]),
    ("allocator", &[]),
    ("store", &["value", "allocator"]),
    ("flight", FLOOR_0),
    ("failures", FLOOR_0),
    ("breaker", FLOOR_0),
    ("ring", FLOOR_0),
    ("sketch", FLOOR_0),
    ("wire", FLOOR_0),
    ("config", &["value", "store", "flight", "failures"]),
    ("metrics", &["value", "store", "flight", "failures"]),
    ("group", &["value", "store", "flight", "failures", "sketch", "config", "metrics"]),
    ("cluster", &["value", "breaker", "config", "metrics"]),
    ("discovery", &["config", "metrics"]),
    ("plugin", BELOW_3),
    ("peer", BELOW_3),
    ("front", BELOW_3),
    (
        "node",
        &[
            "value",
            "store",
            "flight",
            "failures",
            "wire",
            "config",
            "metrics",
            "group",
            "plugin",
            "peer",
            "cluster",
            "discovery",
            "front",
        ],
    ),
    ("workbench", &["value", "config", "metrics", "group", "plugin"]),
    ("cli", &["config", "cluster", "node", "workbench"]),
];

#[test]
fn modules_import_only_what_stands_below_them() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in sources() {
        let module = module_of(&file);
        let Some(allowed) = arrows.get(module.as_str()) else {
            wrong.push(format!("{}: `{module}` has no floor", file.display()));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a readable source file");
        // Only the binary names the library by its name; elsewhere it is a log target.
        let markers: &[_] =
            if module == "cli" { &["crate::", "cachecluster::"] } else { &["crate::"] };
        for imported in imports(&text, markers) {
            if imported != module && !allowed.contains(&imported.as_str()) {
                wrong.push(format!("{}: `{module}` names `{imported}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that ARCHITECTURE.md does not draw:\n{}", wrong.join("\n"));
}

#[test]
fn an_arrow_upwards_would_be_seen() {
    let list = "use crate::{\n    group::{Group, front},\n    node::Node,\n}; // crate::cli";
    let both = ["crate::", "cachecluster::"];
    assert_eq!(imports(list, &both), ["group", "node"]);
    let code = "let x = crate::front::serve(cachecluster::node());";
    assert_eq!(imports(code, &both), ["front", "node"]);
    assert_eq!(imports(code, &["crate::"]), ["front"]);
    assert!(imports("//! [`crate::node`] is documented here", &both).is_empty());
}

/// Every source file of the library and its binary, but the binary's entry.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    let entries = [root.join("lib.rs"), root.join("main.rs")];
    files.retain(|file| !entries.contains(file));
    assert!(files.len() > 10, "the sources are where this test looks");
    files
}

/// The module of the crate's root that a file belongs to.
fn module_of(file: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let below = file.strip_prefix(root).expect("a file below the root");
    let first = below.iter().next().expect("a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a source text names by the crate's own path, comments apart.
fn imports(text: &str, markers: &[&str]) -> Vec<String> {
    let code: String =
        text.lines().flat_map(|line| [line.split("//").next().unwrap_or_default(), "\n"]).collect();
    let mut names = Vec::new();
    for marker in markers {
        for (at, _) in code.match_indices(marker) {
            let rest = &code[at + marker.len()..];
            match rest.strip_prefix('{') {
                Some(list) => names.extend(top_level_names(list)),
                None => names.push(leading_name(rest)),
            }
        }
    }
    names
}

/// The names that stand at the top level of a list in braces.
fn top_level_names(list: &str) -> Vec<String> {
    let mut depth = 1;
    let mut names = Vec::new();
    let mut at_start = true;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_start = true,
            _ if at_start && !character.is_whitespace() => {
                names.push(leading_name(&list[at..]));
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect()
}
