//! What the demo's members share from the start, so that there is something to look at.

use actors::view::PlacedView;
use hyper::Method;
use serde_json::{Value, json};

use super::state::Member;
use crate::{
    cli::{client::Client, exit::Failure},
    keys::AdminToken,
};

/// Who are partners.
const PARTNERS: [&str; 2] = ["paris", "lyon"];

/// Makes two nodes partners and has each offer something, as their operators would. Says what was done; nothing where one
/// of them does not run any more.
///
/// # Errors
/// When one of them does not do as it is told.
pub(crate) async fn share(members: &[Member]) -> Result<Option<String>, Failure> {
    let [paris, lyon] = PARTNERS.map(|name| members.iter().find(|member| member.name == name));
    let (Some(paris), Some(lyon)) = (paris, lyon) else { return Ok(None) };
    for (from, to) in [(paris, lyon), (lyon, paris)] {
        let path = format!("/api/v1/partners/{}", to.peer_id);
        client(from)?.send(Method::PUT, &path, Some(&json!({ "name": to.name }))).await?;
    }
    for (from, (id, resource)) in [(paris, farm()), (lyon, archive(&paris.peer_id))] {
        let path = format!("/api/v1/resources/{id}");
        let _: PlacedView = client(from)?.change(Method::PUT, &path, Some(resource.to_string().into())).await?;
    }
    let [paris, lyon] = PARTNERS;
    Ok(Some(format!(
        "{paris} and {lyon} are partners: {paris} offers {FARM} to all, {lyon} {ARCHIVE} to {paris} alone"
    )))
}

const FARM: &str = "gpu-farm";
const ARCHIVE: &str = "weather-archive";

/// For everybody.
fn farm() -> (&'static str, Value) {
    let resource = json!({
        "kind": "compute",
        "name": "GPU farm",
        "type": "gpu",
        "short_description": "Eight accelerators, by the hour",
        "owners": ["Paris computing centre"],
        "access": "public",
    });
    (FARM, resource)
}

/// For every group of one partner.
fn archive(partner: &str) -> (&'static str, Value) {
    let resource = json!({
        "kind": "data",
        "name": "Weather archive",
        "type": "netcdf",
        "short_description": "Hourly observations since 1950",
        "owners": ["Lyon observatory"],
        "access": "private",
        "instances": [{ "partnerships": [{ "peer": partner, "groups": ["*"] }] }],
    });
    (ARCHIVE, resource)
}

fn client(member: &Member) -> Result<Client, Failure> {
    let token = AdminToken::read(&member.dir.join("data"))?.expose().to_owned();
    Ok(Client::to(member.admin.to_string()).with_token(Some(token)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{
        catalogue::{Access, Draft},
        identity::Keys,
    };

    use super::*;

    #[test]
    fn what_the_demo_shares_is_what_a_member_takes() {
        let keys = Keys::from_seed([7; 32]);
        let partner = crate::admin::testing::peer();
        for (id, mut resource) in [farm(), archive(&partner.to_string())] {
            resource["id"] = json!(id);
            let draft = Draft::read(&resource.to_string(), None).unwrap();
            let signed = draft.sign(&keys, 1, jiff::Timestamp::UNIX_EPOCH).unwrap();
            assert!(signed.is_shared_with(&partner), "{id}");
            assert_eq!(signed.access == Access::Public, id == FARM);
        }
    }

    #[tokio::test]
    async fn where_a_partner_is_gone_nothing_is_shared() {
        assert_eq!(share(&[]).await, Ok(None));
    }
}
