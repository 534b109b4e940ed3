//! The table `[[test]]` of a manifest, run: each get in a warm and in a fresh instance.

use std::{io, sync::Arc, time::Duration};

use serde::Serialize;
use thiserror::Error;

use super::{
    Mode, Workbench, answer, expectation::Test, fill, manifest::Manifest, origin::Origin,
    project::Project,
};
use crate::{
    group::FillError,
    plugin::{Ended, LoadError, Measured, Plugin, Problem},
};

/// How one test went.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// What it shows.
    pub name: String,
    /// The key that was got.
    pub key: String,
    /// The get in an instance that had served the tests before.
    pub warm: ModeReport,
    /// The get in an instance of its own.
    pub fresh: ModeReport,
}

/// How one test went in one mode.
#[derive(Clone, Debug, Serialize)]
pub struct ModeReport {
    /// What came of the get, in one line.
    pub answer: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was expected and is not so; nothing when the test passed.
    pub differences: Vec<String>,
}

impl TestReport {
    /// Whether everything was as expected, in both modes.
    pub fn passed(&self) -> bool {
        self.warm.differences.is_empty() && self.fresh.differences.is_empty()
    }
}

/// Why no test was run.
#[derive(Debug, Error)]
pub enum TableError {
    /// The component cannot be read or compiled.
    #[error(transparent)]
    Component(#[from] Problem),
    /// The plugin does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no port for the origin.
    #[error("cannot play the origin: {0}")]
    Origin(#[from] io::Error),
}

/// Runs the tests of `manifest` against the component of `project`, and tells `each` how
/// it went when it has ended.
///
/// # Errors
/// The plugin does not load.
pub async fn run(
    workbench: &Workbench,
    project: &Project,
    manifest: &Manifest,
    mut each: impl FnMut(&TestReport) -> io::Result<()>,
) -> Result<(), TableError> {
    let compiled = workbench.compile(&project.component).await?;
    let (origin, settings) = project.play(&project.settings()).await?;
    let load =
        async |mode: Mode| workbench.load(project, &compiled, &mode.settings(&settings)).await;
    let (warm, fresh) = (load(Mode::Warm).await?, load(Mode::Fresh).await?);
    for test in &manifest.test {
        let report = TestReport {
            name: test.name.clone(),
            key: test.key.clone(),
            warm: run_one(&warm, origin.as_ref(), test, settings.limits.timeout).await,
            fresh: run_one(&fresh, origin.as_ref(), test, settings.limits.timeout).await,
        };
        each(&report)?;
    }
    Ok(())
}

async fn run_one(
    plugin: &Arc<Plugin>,
    origin: Option<&Origin>,
    test: &Test,
    time: Duration,
) -> ModeReport {
    let count = || origin.map_or(0, Origin::count);
    let before = count();
    let fill = fill(&test.key, test.context_validator.as_deref(), time);
    let Measured { ended, cost } = plugin.measure(fill).await;
    let asked = count() - before;
    ModeReport {
        answer: answer::line(&ended),
        seconds: cost.wall.as_secs_f64(),
        differences: differences(test, &ended, asked),
    }
}

/// What of `test` is not so, after a call that `ended` and asked the origin `asked`
/// times.
fn differences(test: &Test, ended: &Ended, asked: u64) -> Vec<String> {
    if answer::kind(ended) != Some(test.expect) {
        return vec![format!("{} where {} is expected", answer::line(ended), test.expect.name())];
    }
    let mut differences = Vec::new();
    let mut compare = |what: &str, expected: Option<String>, found: Option<String>| {
        if let Some(expected) = expected
            && found.as_ref() != Some(&expected)
        {
            let found = found.unwrap_or_else(|| "nothing".to_owned());
            differences.push(format!("{what}: {found} where {expected} is expected"));
        }
    };
    let quoted = |text: &String| answer::quoted(text);
    let time = |time: Duration| humantime::format_duration(time).to_string();
    let head = answer::value(ended).and_then(|value| value.head());
    let freshness = answer::freshness(ended).unwrap_or_default();
    compare("ttl", test.ttl.map(time), freshness.ttl.map(time));
    compare("stale", test.stale.map(time), freshness.grace.map(time));
    compare(
        "content_type",
        test.content_type.as_ref().map(quoted),
        head.and_then(|head| Some(answer::shown(head.content_type.as_ref()?.as_bytes(), 0))),
    );
    compare(
        "validator",
        test.validator.as_ref().map(quoted),
        head.and_then(|head| head.validator.as_deref()).map(answer::quoted),
    );
    compare(
        "tags",
        test.tags.as_ref().map(|tags| format!("{tags:?}")),
        answer::value(ended)
            .map(|value| format!("{:?}", value.head().map_or(&[][..], |head| &head.tags))),
    );
    let error = answer::error(ended);
    compare(
        "retry_after",
        test.retry_after.map(time),
        error.and_then(FillError::retry_after).map(time),
    );
    if let (Some(part), Some(error)) = (&test.message_contains, error) {
        let said = answer::message(error);
        if !said.contains(part) {
            let (said, part) = (answer::quoted(said), answer::quoted(part));
            differences.push(format!("message: {said} where {part} is expected in it"));
        }
    }
    if let Some(expected) = test.value() {
        let found = answer::value(ended).map_or(&[][..], |value| value.body());
        differences.extend(answer::difference(&expected, found).map(|it| format!("body: {it}")));
    }
    if let Some(expected) = test.origin_requests
        && u64::from(expected) != asked
    {
        differences.push(format!(
            "origin_requests: the origin was asked {asked} times where {expected} is expected"
        ));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        group::Outcome,
        value::{Freshness, Head, Value},
        workbench::manifest,
    };

    fn test(rest: &str) -> Test {
        let text = format!(
            "[plugin]\nname = \"p\"\ncomponent = \"p.wasm\"\n\
             [[test]]\nname = \"t\"\nkey = \"k\"\n{rest}"
        );
        let read = Manifest::read(&text, manifest::FILE_NAME);
        read.map(|(manifest, _)| manifest.test[0].clone()).expect("a test")
    }

    fn found() -> Ended {
        let head = Head {
            content_type: Some("text/plain".parse().expect("a value")),
            validator: Some("\"v1\"".into()),
            tags: vec!["one".into(), "two".into()],
            metadata: Vec::new(),
        };
        let freshness = Freshness::ttl(Duration::from_mins(1));
        Ended::Answered(Outcome::Found(Value::with_head(b"value", head.into()), freshness))
    }

    #[test]
    fn what_is_as_expected_makes_no_difference() {
        let test = test(
            "expect = \"found\"\nbody = \"value\"\nttl = \"60s\"\ncontent_type = \"text/plain\"\n\
             validator = '\"v1\"'\ntags = [\"one\", \"two\"]\norigin_requests = 2\n",
        );
        assert_eq!(differences(&test, &found(), 2), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_not_as_expected_is_told() {
        let test = test(
            "expect = \"found\"\nbody = \"valve\"\nttl = \"61s\"\nstale = \"1s\"\n\
             content_type = \"text/html\"\nvalidator = \"v1\"\ntags = []\norigin_requests = 1\n",
        );
        let told = differences(&test, &found(), 2).join("\n");
        for part in [
            "body: \"value\" where \"valve\" is expected",
            "ttl: 1m where 1m 1s is expected",
            "stale: nothing where 1s is expected",
            "content_type: \"text/plain\" where \"text/html\" is expected",
            "validator: '\"v1\"' where \"v1\" is expected",
            "tags: [\"one\", \"two\"] where [] is expected",
            "the origin was asked 2 times where 1 is expected",
        ] {
            assert!(told.contains(part), "no {part} in {told}");
        }
    }

    #[test]
    fn another_kind_of_answer_is_told_with_all_of_it() {
        let denied = Ended::Failed(FillError::Denied("no entry".to_owned()));
        let told = differences(&test("expect = \"not-found\"\n"), &denied, 0);
        assert_eq!(told, ["denied: no entry where not-found is expected"]);
        let test = test("expect = \"denied\"\nmessage_contains = \"exit\"\n");
        let told = differences(&test, &denied, 0).join("\n");
        assert!(told.contains("\"exit\" is expected in it"), "{told}");
    }
}
