//! Files other than the node's own settings that are written as strictly as they are:
//! unknown keys, wrong types and values out of range are reported all at once, each
//! with its place and its remedy.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{
    Limits, Network, Wasm,
    draft::Draft,
    read,
    report::{Report, Reports},
    rules,
    shape::Shape,
    walk::dotted,
};

/// A file that was read and whose values fit their types; what they mean together is
/// still to be checked by whoever knows it.
#[derive(Debug)]
pub struct Document<T> {
    content: T,
    draft: Draft,
}

impl<T: JsonSchema + DeserializeOwned> Document<T> {
    /// Reads `text`; `name` stands for its path in reports.
    ///
    /// # Errors
    /// A file that is not TOML, or whose values cannot be read at all.
    pub fn read(text: &str, name: &str) -> Result<Self, Reports> {
        let (content, draft) = read::document(text, name, &Shape::of::<T>())?;
        Ok(Self { content, draft })
    }
}

impl<T> Document<T> {
    /// What was read. Values that were refused have a stand-in here.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// Refuses the value at `path`, unless it was refused before. Entries of a list have
    /// their number as a key, from 0.
    pub fn refuse(&mut self, path: &[&str], title: impl Into<String>, help: impl Into<String>) {
        rules::wrong(&mut self.draft, path, title.into(), help.into());
    }

    /// Says that the value at `path` is doubtful.
    pub fn doubt(&mut self, path: &[&str], title: impl Into<String>, help: impl Into<String>) {
        let place = self.draft.nearest_key(path);
        let report = Report::warning(title).at(place, dotted(path)).help(help);
        self.draft.reports.push(report);
    }

    /// Checks the tables `limits` and `network` of a plugin as those of a node's config
    /// are checked; a node has the default `[wasm]` settings here. `written` turns a grant
    /// with placeholders into one without.
    pub fn check_grants(
        &mut self,
        name: &str,
        limits: &Limits,
        network: &Network,
        written: impl Fn(&str) -> String,
    ) {
        rules::limits(&mut self.draft, &[], name, limits, &Wasm::default());
        rules::network(&mut self.draft, &[], network, written);
    }

    /// The content and the warnings about it.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn finish(self) -> Result<(T, Vec<Report>), Reports> {
        let warnings = read::finish(self.draft)?;
        Ok((self.content, warnings))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    use crate::config::units;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Menu {
        dishes: Vec<Dish>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Dish {
        name: String,
        #[serde(default, with = "units::duration")]
        #[schemars(with = "units::DurationText")]
        takes: Duration,
        #[serde(default)]
        #[schemars(range(min = 1, max = 9))]
        guests: Option<u32>,
    }

    fn read(text: &str) -> Result<Menu, String> {
        let document = Document::<Menu>::read(text, "menu.toml").map_err(|it| it.render(false))?;
        document.finish().map(|(menu, _)| menu).map_err(|reports| reports.render(false))
    }

    #[test]
    fn tables_in_lists_are_read_and_checked() {
        let menu = read("[[dishes]]\nname = \"soup\"\ntakes = \"20m\"\nguests = 2\n");
        let menu = menu.expect("a menu");
        assert_eq!(menu.dishes[0].name, "soup");
        assert_eq!(menu.dishes[0].takes, Duration::from_mins(20));
        assert_eq!(menu.dishes[0].guests, Some(2));
    }

    #[test]
    fn every_mistake_in_a_list_is_reported_at_its_place() {
        let text = "[[dishes]]\nnam = \"soup\"\n[[dishes]]\nname = \"pie\"\nguests = 12\n\
                    takes = \"soon\"\n";
        let said = read(text).expect_err("mistakes");
        for part in [
            "menu.toml:2:1",
            "did you mean `name`?",
            "`[[dishes]]` has no `name`",
            "menu.toml:5:10",
            "choose from 1 to 9",
            "menu.toml:6:9",
            "not a duration",
        ] {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }

    #[test]
    fn what_the_owner_finds_is_reported_with_the_rest() {
        let text = "[[dishes]]\nname = \"soup\"\n";
        let mut document = Document::<Menu>::read(text, "menu.toml").expect("a menu");
        document.refuse(&["dishes", "0", "name"], "soup is off", "choose another");
        let said = document.finish().expect_err("refused").render(false);
        assert!(said.contains("menu.toml:2:8") && said.contains("choose another"), "{said}");
    }
}
