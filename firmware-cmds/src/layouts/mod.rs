//! The manual's structures, by subject. Names are the kernel's
//! (`struct mlx5_ifc_NAME_bits`), types the same in camel case.

use crate::layout::Info;

/// Declares the modules, re-exports what they hold and joins their lists, so
/// that a file of structures is either in [`ALL`] or not compiled.
macro_rules! subjects {
    ($($module:ident)*) => {
        $(pub mod $module;)*
        $(pub use $module::*;)*

        /// Every structure of every subject: what the check against the
        /// kernel's header, trace decoding and structured fuzzing walk.
        pub const ALL: &[fn() -> Info] = &join::<{ 0 $(+ $module::ALL.len())* }>(&[$($module::ALL),*]);
    };
}

subjects! {
    caps
    caps_steering
    flow
    fte
    hca
    port_counters
    queue
    regs
    seg
    sf
    transport
    tunnel
    vport
}

const fn join<const N: usize>(lists: &[&[fn() -> Info]]) -> [fn() -> Info; N] {
    let mut all = [lists[0][0]; N];
    let (mut list, mut n) = (0, 0);
    while list < lists.len() {
        let mut i = 0;
        while i < lists[list].len() {
            all[n] = lists[list][i];
            n += 1;
            i += 1;
        }
        list += 1;
    }
    assert!(n == N, "the lists are as long as they say");
    all
}

#[cfg(test)]
mod tests;
