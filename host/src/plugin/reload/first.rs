//! What a plugin begins with: its file, or its last good version.

use tracing::warn;

use super::{settle, shelf::Place, stage::Stage};
use crate::plugin::{
    component::{self, Source},
    error::Problem,
    generation::Generation,
    loader::{Code, Identity, Loader, Recipe, abandoned},
};

/// A version that is not to go live, with its digest if it has one.
pub(super) struct Refused(pub(super) Option<String>, pub(super) Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(None, problem)
    }
}

/// Tries what `recipe` describes and throws it away: the digest, or what is wrong.
pub(in crate::plugin) async fn check(
    loader: &Loader,
    identity: &Identity,
    recipe: &Recipe,
) -> Result<String, Problem> {
    let stage = Stage::new(Place::nowhere());
    let tried = first(loader, identity, recipe, &stage).await;
    tried.map(|(generation, _)| generation.digest.clone()).map_err(|Refused(_, problem)| problem)
}

/// The first generation of a plugin, from its file.
pub(super) async fn first(
    loader: &Loader,
    identity: &Identity,
    recipe: &Recipe,
    stage: &Stage,
) -> Result<(Generation, Source), Refused> {
    let path = recipe.path();
    let reading = loader.fills.spawn_blocking(move || component::open(&path));
    let mut source = reading.await.map_err(|error| abandoned(&error))??;
    if !settle::is_whole(&source.bytes) {
        // Somebody may be writing it.
        source = settle::read(&loader.fills, recipe.path()).await?;
    }
    let digest = source.digest.clone();
    let refused = |problem| Refused(Some(digest.clone()), problem);
    if stage.quarantine.contains(&digest) {
        return Err(refused(Problem::Quarantined { digest: digest.clone() }));
    }
    let code = Code::Source(source.clone());
    let generation = loader.generation(identity, recipe, code, None).await.map_err(refused)?;
    Ok((generation, source))
}

/// A generation of the last good version, if there is one that the settings allow.
pub(super) async fn last_good(
    loader: &Loader,
    identity: &Identity,
    recipe: &Recipe,
    stage: &Stage,
) -> Option<Generation> {
    let source = stage.place.good()?;
    let code = Code::Source(source);
    let tried = loader.generation(identity, recipe, code, None).await;
    tried
        .inspect_err(|problem| {
            let plugin = &*identity.name;
            warn!(plugin, %problem, "The last good version of the plugin cannot be loaded either.");
        })
        .ok()
}
