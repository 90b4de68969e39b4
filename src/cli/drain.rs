//! `muster drain`, `muster undrain`: lets the nodes of an indexer go, one batch after the other, and takes none.

use hyper::Method;

use super::{
    Context,
    exit::{Exit, Failure},
    output::say,
};

/// Which indexer.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A member of the running demo, as --on would name it, for example indexer-2
    name: Option<String>,
}

/// Lets them go.
pub(super) async fn drain(args: &Args, context: &Context) -> Result<(), Failure> {
    order(args, context, Method::PUT).await?;
    say("it takes no new sessions, and its nodes are asked to move; `muster status` shows how many are left\n\
         it stays so over restarts, until `muster undrain`")
}

/// Takes them again.
pub(super) async fn undrain(args: &Args, context: &Context) -> Result<(), Failure> {
    order(args, context, Method::DELETE).await?;
    say("it takes sessions again")
}

async fn order(args: &Args, context: &Context, method: Method) -> Result<(), Failure> {
    let mut context = context.clone();
    if let Some(name) = &args.name {
        if !context.at.demo {
            return Err(Failure::new(Exit::Usage, "a name is that of a member of the demo").next("add --demo"));
        }
        context.at.on = Some(name.clone());
    }
    context.client_that_changes()?.send(method, "/api/v1/drain", None).await
}
