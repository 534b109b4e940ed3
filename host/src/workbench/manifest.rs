//! `plugin.toml`: what there is to know about a plugin while it is made.
//!
//! Its tables `config`, `network` and `limits` are those of a plugin in a node's
//! settings, so that they can be copied from one to the other. `origin` and `test` are
//! the workbench's own: what the origin says that the workbench plays, and what the
//! plugin must make of it.
//!
//! Invariants:
//! - a manifest is as strict as a node's settings: what is not known is an error, and
//!   all errors are reported at once;
//! - [`ORIGIN`] stands for the origin that the workbench plays, whose port is not known
//!   before it runs, and for nothing else.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::expectation::{self, Test};
use crate::config::{Document, Limits, Network, Plugin, Report, Reports, SecretText, units};

/// Name of the manifest in a project's folder.
pub const FILE_NAME: &str = "plugin.toml";

/// What stands for the host and port of the origin that the workbench plays, in the
/// settings and in the grants.
pub const ORIGIN: &str = "{origin}";

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The plugin itself.
    pub plugin: About,
    /// The plugin's own settings. `{origin}` stands for the host and port of the origin
    /// that the workbench plays.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Settings that are secret: a name, and where the value is read when the plugin is
    /// tried, `env:VARIABLE` or `file:PATH` (relative to the manifest's folder).
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, SecretText>")]
    pub secrets: BTreeMap<String, String>,
    /// What the plugin may reach; `{origin}` as in `config`.
    #[serde(default)]
    pub network: Network,
    /// What one call and one instance may use.
    #[serde(default)]
    pub limits: Limits,
    /// What the origin answers that the workbench plays. Whatever has no route is a 404.
    #[serde(default)]
    pub origin: Vec<Route>,
    /// Gets, and what has to come of them.
    #[serde(default)]
    pub test: Vec<Test>,
}

/// A plugin's name, its language and its file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Its name: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The language it is written in, for `cachecluster plugin build`. Left out, it is
    /// built by other means.
    #[serde(default)]
    #[schemars(with = "Lang")]
    pub lang: Option<Lang>,
    /// The component, relative to the manifest's folder.
    pub component: PathBuf,
}

/// A language that plugins are built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Rust.
    Rust,
    /// C.
    C,
    /// JavaScript.
    Js,
    /// Python.
    Python,
    /// Go.
    Go,
}

impl Lang {
    /// Every language, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Rust, Self::C, Self::Js, Self::Python, Self::Go];

    /// Its name as it stands in a manifest and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Js => "js",
            Self::Python => "python",
            Self::Go => "go",
        }
    }
}

/// One path of the origin that the workbench plays.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The path as it is sent, percent-encoded where it must be, with its query.
    pub path: String,
    /// Status of the answer.
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Header fields of the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// The body where it is no text, in base64. Not together with `body`.
    #[serde(default)]
    pub body_base64: Option<String>,
    /// How long the origin takes to answer.
    #[serde(default, with = "units::duration")]
    #[schemars(with = "units::DurationText", extend("x-maximum" = "1h"))]
    pub delay: Duration,
}

const fn ok() -> u16 {
    200
}

impl Manifest {
    /// Reads `text`, the content of the manifest `name`, and checks all of it. The
    /// reports are what is doubtful, and no error.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(text: &str, name: &str) -> Result<(Self, Vec<Report>), Reports> {
        let mut document = Document::<Self>::read(text, name)?;
        check(&mut document);
        document.finish()
    }

    /// The plugin as a node's settings would have it, but for [`ORIGIN`], which still
    /// stands for an address.
    pub fn settings(&self) -> Plugin {
        Plugin {
            limits: self.limits.clone(),
            network: self.network.clone(),
            config: self.config.clone(),
            secrets: self.secrets.clone(),
            ..Plugin::new(&self.plugin.component)
        }
    }
}

/// Whether `settings` speak of an origin that the workbench is to play.
pub fn names_origin(settings: &Plugin) -> bool {
    let grants = settings.network.http.iter().chain(&settings.network.tcp);
    settings.config.values().chain(grants).any(|text| text.contains(ORIGIN))
}

/// `settings` with the address of `origin` in the place of [`ORIGIN`].
#[must_use]
pub fn with_origin(settings: &Plugin, origin: SocketAddr) -> Plugin {
    let written = |text: &mut String| *text = text.replace(ORIGIN, &origin.to_string());
    let mut settings = settings.clone();
    settings.config.values_mut().for_each(written);
    settings.network.http.iter_mut().chain(&mut settings.network.tcp).for_each(written);
    settings
}

fn check(document: &mut Document<Manifest>) {
    let manifest = document.content().clone();
    let About { name, component, .. } = &manifest.plugin;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty()
        || name.len() > 64
        || !name.chars().all(is_plain)
        || name == "."
        || name == ".."
    {
        document.refuse(
            &["plugin", "name"],
            "that can be no plugin's name",
            "names are 1 to 64 letters, digits, `.`, `_` and `-`",
        );
    }
    if component.as_os_str().is_empty() {
        document.refuse(
            &["plugin", "component"],
            "a plugin without a file",
            format!("name the component's file: `component = \"{name}.wasm\"`"),
        );
    }
    let written = |text: &str| text.replace(ORIGIN, "127.0.0.1:8080");
    document.check_grants(name, &manifest.limits, &manifest.network, written);
    for name in manifest.secrets.keys().filter(|name| manifest.config.contains_key(*name)) {
        let title = format!("`{name}` is both a setting and a secret");
        document.refuse(&["secrets", name], title, "remove it from `[config]`");
    }
    for (index, route) in manifest.origin.iter().enumerate() {
        check_route(document, &index.to_string(), route, &manifest.origin[..index]);
    }
    for (index, test) in manifest.test.iter().enumerate() {
        expectation::check(document, &index.to_string(), test);
    }
}

fn check_route(document: &mut Document<Manifest>, index: &str, route: &Route, before: &[Route]) {
    let at = |key: &'static str| ["origin", index, key];
    if !route.path.starts_with('/') {
        let help = format!("write it as `/{}`", route.path);
        document.refuse(&at("path"), "a path begins with a slash", help);
    } else if !route.path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let help = "percent-encode what is no visible ASCII character: a space is `%20`";
        document.refuse(&at("path"), "no client sends this path", help);
    }
    if before.iter().any(|other| other.path == route.path) {
        document.refuse(&at("path"), "an earlier route has this path", "keep one of the two");
    }
    if !(200..=599).contains(&route.status) {
        document.refuse(&at("status"), "that is no status of an answer", "choose from 200 to 599");
    }
    for (name, value) in &route.headers {
        let path = ["origin", index, "headers", name];
        if http::HeaderName::try_from(name).is_err() {
            document.refuse(&path, "that is no name of a header", "letters, digits and `-`");
        } else if http::HeaderValue::try_from(value).is_err() {
            document.refuse(&path, "that is no value of a header", "leave out control characters");
        }
    }
    if let Some(text) = &route.body_base64 {
        if !route.body.is_empty() {
            let help = "keep one of `body` and `body_base64`";
            document.refuse(&at("body_base64"), "a body that is given twice", help);
        } else if expectation::base64(text).is_none() {
            let help = "write what `base64 -w0 FILE` prints";
            document.refuse(&at("body_base64"), "this is not base64", help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::expectation::Expect, *};

    const WHOLE: &str = r#"
[plugin]
name = "items"
lang = "rust"
component = "items.wasm"

[config]
url = "http://{origin}/items"

[network]
http = ["http://{origin}"]
allow_private = ["127.0.0.0/8"]

[limits]
timeout = "2s"

[[origin]]
path = "/items/a"
headers = { "content-type" = "text/plain" }
body = "an item\n"
delay = "10ms"

[[test]]
name = "an item that exists"
key = "a"
expect = "found"
body = "an item\n"
ttl = "60s"
origin_requests = 1

[[test]]
name = "an item that does not"
key = "b"
expect = "not-found"
"#;

    fn said(text: &str) -> String {
        Manifest::read(text, FILE_NAME).expect_err("refused").render(false)
    }

    #[test]
    fn a_manifest_says_everything_about_a_plugin() {
        let (manifest, warnings) = Manifest::read(WHOLE, FILE_NAME).expect("a manifest");
        assert_eq!(warnings, []);
        assert_eq!(manifest.plugin.lang, Some(Lang::Rust));
        assert_eq!((manifest.origin.len(), manifest.origin[0].status), (1, 200));
        assert_eq!(manifest.test[0].ttl, Some(Duration::from_mins(1)));
        assert_eq!(manifest.test[1].expect, Expect::NotFound);
    }

    #[test]
    fn the_origins_address_takes_its_place_in_settings_and_grants() {
        let (manifest, _) = Manifest::read(WHOLE, FILE_NAME).expect("a manifest");
        assert!(names_origin(&manifest.settings()));
        let settings = with_origin(&manifest.settings(), ([127, 0, 0, 1], 4711).into());
        assert!(!names_origin(&settings));
        assert_eq!(settings.config["url"], "http://127.0.0.1:4711/items");
        assert_eq!(settings.network.http, ["http://127.0.0.1:4711"]);
        assert_eq!(settings.limits.timeout, Duration::from_secs(2));
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let said = said(
            "[plugin]\nname = \"a b\"\nlang = \"rst\"\ncomponent = \"\"\n\
             [network]\nhttp = [\"{origin}\"]\n[limits]\ntimeot = \"1s\"\n\
             [[origin]]\npath = \"items\"\nstatus = 99\n\
             [[test]]\nname = \"x\"\nkey = \"a\"\nexpct = \"found\"\n",
        );
        for part in [
            "plugin.toml:2:8",
            "did you mean `rust`?",
            "plugin.toml:4:13",
            "write it as `https://127.0.0.1:8080`",
            "did you mean `timeout`?",
            "write it as `/items`",
            "choose from 200 to 599",
            "did you mean `expect`?",
            "`[[test]]` has no `expect`",
        ] {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }

    #[test]
    fn what_can_never_be_expected_is_refused() {
        let about = "[plugin]\nname = \"a\"\ncomponent = \"a.wasm\"\n";
        let test = |rest: &str| format!("{about}[[test]]\nname = \"x\"\nkey = \"k\"\n{rest}");
        for (rest, part) in [
            ("expect = \"not-found\"\nbody = \"x\"\n", "`body` never comes with `not-found`"),
            ("expect = \"denied\"\nttl = \"1s\"\n", "`ttl` never comes with `denied`"),
            ("expect = \"found\"\nmessage_contains = \"x\"\n", "expect an error"),
            ("expect = \"not-modified\"\n", "context_validator"),
            ("expect = \"found\"\nbody_base64 = \"?\"\n", "not base64"),
        ] {
            let said = said(&test(rest));
            assert!(said.contains(part), "no {part} in {said}");
        }
        let route = "[[origin]]\npath = \"/a\"\n[[origin]]\npath = \"/a\"\n";
        assert!(said(&format!("{about}{route}")).contains("an earlier route"));
    }
}
