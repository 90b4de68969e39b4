//! Pages of lists. A page names the next one in its `Link` (RFC 8288), by a cursor that says after which row it begins:
//! whatever comes or goes meanwhile, no row that stays is left out or shown twice.

use std::{fmt::Display, str::FromStr};

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, Uri, header},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::{
    problem::Problem,
    question::{limit, wrong},
};

/// Which page is wanted; without either, all there is in its usual order.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Names the page: that of the `Link` of the one before. Pages are in the order of ids.
    pub(super) cursor: Option<String>,
    /// How many, 1 to 500; with a cursor alone 100, with neither all there are.
    pub(super) limit: Option<u32>,
}

/// A page as it is answered.
pub(super) type Page<T> = (HeaderMap, Json<Vec<T>>);

/// The page of these rows that is wanted. A row's key is its own and never changes.
pub(super) fn page<T>(
    uri: &Uri,
    Paging { cursor, limit: given }: Paging,
    mut rows: Vec<T>,
    key: impl Fn(&T) -> String,
) -> Result<Page<T>, Problem> {
    if cursor.is_none() && given.is_none() {
        return Ok((HeaderMap::new(), Json(rows)));
    }
    let after = cursor.as_deref().map(read::<String>).transpose()?;
    let limit = limit(given)? as usize;
    rows.retain(|row| after.as_ref().is_none_or(|after| key(row) > *after));
    rows.sort_by_cached_key(&key);
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| is_more).map(&key);
    Ok((next(uri, last), Json(rows)))
}

/// What a cursor says.
pub(super) fn read<K: FromStr>(cursor: &str) -> Result<K, Problem> {
    let broken = || wrong(format!("got the cursor {cursor:?}, expected one of a Link of this list"));
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| broken())?;
    String::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(broken)
}

/// The header that names the page after the row with this key; none after the last page.
pub(super) fn next(uri: &Uri, last: Option<impl Display>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(last) = last {
        let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
            !pair.is_empty() && !["cursor=", "after=", "before=", "since="].iter().any(|name| pair.starts_with(name))
        });
        let cursor = format!("cursor={}", URL_SAFE_NO_PAD.encode(last.to_string()));
        let query: Vec<&str> = kept.chain([cursor.as_str()]).collect();
        let link = format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"));
        // What came as a URI can be written as one.
        headers.extend(HeaderValue::from_str(&link).ok().map(|link| (header::LINK, link)));
    }
    headers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn asked(uri: &Uri, rows: &[u32]) -> Result<(Vec<u32>, Option<Uri>), u16> {
        let mut paging = Paging::default();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap() {
                ("cursor", cursor) => paging.cursor = Some(cursor.to_owned()),
                ("limit", limit) => paging.limit = limit.parse().ok(),
                _ => {}
            }
        }
        let key = |row: &u32| format!("{row:010}");
        let (headers, Json(page)) = page(uri, paging, rows.to_vec(), key).map_err(|problem| problem.status())?;
        let link = headers.get(header::LINK).map(|link| link.to_str().unwrap().to_owned());
        let next = link.map(|link| link.strip_prefix('<').unwrap().split('>').next().unwrap().parse().unwrap());
        Ok((page, next))
    }

    #[test]
    fn without_a_page_all_rows_come_in_their_usual_order() {
        assert_eq!(asked(&"/rows".parse().unwrap(), &[3, 1, 2]), Ok((vec![3, 1, 2], None)));
    }

    #[test]
    fn a_limit_has_its_bounds_and_a_cursor_its_form() {
        let rows: Vec<u32> = (0..600).collect();
        for (query, status) in [
            ("limit=1", None),
            ("limit=500", None),
            ("limit=0", Some(400)),
            ("limit=501", Some(400)),
            ("cursor=!", Some(400)),
            ("cursor=%2F", Some(400)),
            ("cursor=_w", Some(400)),
        ] {
            let got = asked(&format!("/rows?{query}").parse().unwrap(), &rows).err();
            assert_eq!(got, status, "{query}");
        }
    }

    #[test]
    fn the_next_page_keeps_what_else_was_asked_and_the_last_has_none() {
        let (page, next) = asked(&"/rows?kind=a%20b&limit=2".parse().unwrap(), &[1, 2, 3]).unwrap();
        assert_eq!(page, [1, 2]);
        let next = next.unwrap();
        assert!(next.to_string().starts_with("/rows?kind=a%20b&limit=2&cursor="), "{next}");
        assert_eq!(asked(&next, &[1, 2, 3]).unwrap(), (vec![3], None));
        assert_eq!(asked(&"/rows?limit=3".parse().unwrap(), &[1, 2, 3]).unwrap().1, None, "exactly full");
    }

    proptest! {
        #[test]
        fn what_stays_is_shown_once_whatever_comes_and_goes(
            stays in prop::collection::btree_set(0u32..1_000, 0..60),
            others in prop::collection::vec(prop::collection::vec(0u32..1_000, 0..20), 1..80),
            limit in 1u32..20,
        ) {
            let mut uri: Uri = format!("/rows?limit={limit}").parse().unwrap();
            let mut shown = Vec::new();
            let mut others = others.into_iter().cycle();
            loop {
                let mut rows: Vec<u32> = stays.iter().copied().chain(others.next().unwrap()).collect();
                rows.sort_unstable();
                rows.dedup();
                rows.reverse();
                let (page, next) = asked(&uri, &rows).unwrap();
                prop_assert!(page.len() <= limit as usize);
                shown.extend(page);
                match next {
                    Some(next) => uri = next,
                    None => break,
                }
            }
            prop_assert!(shown.windows(2).all(|two| two[0] < two[1]), "in order and none twice: {shown:?}");
            prop_assert!(stays.iter().all(|row| shown.contains(row)));
        }
    }
}
