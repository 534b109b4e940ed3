//! The traits a plugin implements, and the macro that exports them.

use crate::{Context, Error, Outcome};

/// Fetches one key from the source of truth. Every plugin is one of these.
///
/// There is no `self`: the node runs a getter in as many instances as it
/// likes and throws any of them away when it likes, so state kept between
/// calls is at best a shortcut.
pub trait Getter {
    /// Answers for `key`.
    ///
    /// The node asks at most once at a time per key, and gives up when
    /// [`Context::remaining`] reaches zero.
    fn get(key: &str, ctx: &Context) -> Result<Outcome, Error>;
}

/// Fetches several keys in one trip. Optional: exported with
/// `export!(T, batch)`.
pub trait BatchGetter: Getter {
    /// Answers in the order of `keys`, exactly one result for each.
    ///
    /// The outer error says that the whole batch failed; the node then asks
    /// key by key. A list of another length counts as such a failure.
    fn get_many(keys: &[String], ctx: &Context) -> Result<Vec<Result<Outcome, Error>>, Error>;
}

/// Preparation and self-check. Optional: exported with `export!(T, lifecycle)`.
///
/// Both have a default, so that a plugin may write only one of them.
pub trait Lifecycle {
    /// Called once in each instance before its first get, and once when the
    /// plugin is loaded: an error then keeps the previous version running.
    /// The place to check the configuration.
    fn init() -> Result<(), String> {
        Ok(())
    }

    /// A cheap self-check, called after `init` when the plugin is loaded, and
    /// now and then while it serves.
    fn check() -> Result<(), String> {
        Ok(())
    }
}

/// Makes a type the getter of this component.
///
/// Write it once, at the top level of the crate:
/// - `export!(T)` for a [`Getter`];
/// - `export!(T, batch)` for a [`BatchGetter`] too;
/// - `export!(T, lifecycle)` for a [`Lifecycle`] too;
/// - `export!(T, batch, lifecycle)` for all three.
///
/// The component exports exactly these interfaces. For a target other than
/// wasm the macro only checks that `T` implements the traits.
#[macro_export]
macro_rules! export {
    ($getter:ty $(, $extra:ident)* $(,)?) => {
        const _: () = $crate::export_support::is_getter::<$getter>();

        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::export_support::Adapter<$getter>;
            $crate::export_support::export_getter!(
                Exported with_types_in $crate::export_support::contract
            );
        };

        $($crate::__export_extra!($getter, $extra);)*
    };
}

/// One optional interface of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __export_extra {
    ($getter:ty, batch) => {
        const _: () = $crate::export_support::is_batch_getter::<$getter>();

        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::export_support::Adapter<$getter>;
            $crate::export_support::export_batch_getter!(
                Exported with_types_in $crate::export_support::only_batch
            );
        };
    };
    ($getter:ty, lifecycle) => {
        const _: () = $crate::export_support::is_lifecycle::<$getter>();

        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::export_support::Adapter<$getter>;
            $crate::export_support::export_lifecycle!(
                Exported with_types_in $crate::export_support::only_lifecycle
            );
        };
    };
    ($getter:ty, $other:ident) => {
        compile_error!(concat!(
            "a plugin exports `batch` or `lifecycle` besides its getter, not `",
            stringify!($other),
            "`"
        ));
    };
}
