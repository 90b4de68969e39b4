//! `muster openapi`: the description of the admin endpoint, as the endpoint serves it itself.

use super::{exit::Failure, output::say};
use crate::admin::openapi;

pub(super) fn run() -> Result<(), Failure> {
    say(openapi::text().trim_end())
}
