//! The supervision tree of muster.

pub mod handle;
pub mod supervision;
pub mod view;
