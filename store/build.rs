//! Tells cargo that the migrations are part of this crate, so that a new one is never missed by an old build.

fn main() {
    println!("cargo:rerun-if-changed=../migrations/sqlite");
    println!("cargo:rerun-if-changed=../migrations/postgres");
}
