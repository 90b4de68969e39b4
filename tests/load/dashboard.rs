//! The dashboard in a real browser: how soon something is seen of it, and whether it stays fluid beside 500 nodes.

#[allow(dead_code, clippy::unwrap_used, reason = "the tests of the gate use more of it, and may panic")]
#[path = "../it/harness/browser.rs"]
mod browser;
#[allow(dead_code, clippy::unwrap_used, reason = "the tests of the gate use more of it, and may panic")]
#[path = "../it/harness/process.rs"]
mod process;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::{browser::Browser, process::wait_status};
use crate::{
    broken::{Broken, Outcome, While},
    crew::{Register, Sailor, each},
    figures::{Row, percentile},
    member::{Member, Spec},
    skip,
};

/// For anything that the browser is asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Times the page is opened, each time as if for the first time.
const OPENED: usize = 20;
const OPENED_QUICK: usize = 5;

/// The goal of the design.
const FIRST_PAINT_MS_MAX: f64 = 300.0;

/// Nodes with a session, each shown in a row of its own and all beating.
const NODES: usize = 500;

/// Room for them.
const MAX_NODES: u32 = 600;

/// Between two beats of each, so that every row changes all the time.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// How long each view is looked at.
const LOOKED_AT: Duration = Duration::from_secs(5);

/// A pause between two frames that people notice (Nielsen: a tenth of a second feels like at once).
const PAUSE_MS_MAX: f64 = 100.0;

/// Written into every page before its own modules: when there was something of the daemon to be read.
const FILLED: &str = "new MutationObserver((_, watching) => {
    if (!document.querySelector('.tiles dd')) return;
    window.filledAt = performance.now();
    watching.disconnect();
}).observe(document, { subtree: true, childList: true })";

/// The times between frames for so long, in milliseconds.
const FRAMES: &str = "new Promise((told) => {
    const frames = [];
    const began = performance.now();
    let last = began;
    const next = (now) => {
        frames.push(now - last);
        last = now;
        if (now - began < LOOKED_AT) requestAnimationFrame(next); else told(frames.slice(1));
    };
    requestAnimationFrame(next);
})";

/// The browser's own way of waiting.
#[track_caller]
fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < patience, "waited {patience:?} in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Measures, and tells all that it found.
///
/// # Errors
/// When there is no browser, or a node is refused.
pub(crate) async fn measure(base: &Path, register: &Register, is_quick: bool) -> Outcome<Vec<Row>> {
    let indexer = Member::start(base, &register.network, Spec::indexer("indexer-1", MAX_NODES)).await?;
    let (address, opened) = (format!("http://{}/", indexer.admin()), if is_quick { OPENED_QUICK } else { OPENED });
    let mut rows = in_browser(address.clone(), move |browser, address| paints(browser, address, opened)).await?;
    let to = indexer.addr.clone();
    let crew = each(0..NODES, |number| {
        let (register, to) = (register.clone(), to.clone());
        async move {
            let mut sailor = Sailor::aboard(number, Arc::new(register.node(number)?), &to).await?;
            sailor.introduce(true).await?;
            Ok(sailor)
        }
    });
    let crew = crew.await.when("a crowd for the dashboard")?;
    // Dropped with this function, and with it the nodes.
    let mut beating = tokio::task::JoinSet::new();
    for sailor in crew {
        beating.spawn(async move {
            // All of it: its connection ends with its last part.
            let mut sailor = sailor;
            loop {
                tokio::time::sleep(BEAT_EVERY).await;
                if let Err(cause) = sailor.beats.beat().await {
                    return Broken::new(format!("node {}, while the dashboard was looked at: {cause}", sailor.number));
                }
            }
        });
    }
    rows.extend(in_browser(address, crowd).await?);
    if let Some(lost) = beating.try_join_next() {
        return Err(lost?);
    }
    Ok(rows)
}

/// Works with a browser of its own, beside what else is done.
async fn in_browser(
    address: String,
    work: impl FnOnce(&mut Browser, &str) -> Vec<Row> + Send + 'static,
) -> Outcome<Vec<Row>> {
    let worked = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::started("the dashboard")?;
        browser.resize(1280);
        Some(work(&mut browser, &address))
    });
    worked.await?.ok_or_else(|| Broken::new("there is no chromium"))
}

/// When something is seen, and when it is what the daemon says.
fn paints(browser: &mut Browser, address: &str, opened: usize) -> Vec<Row> {
    browser.call("Network.setCacheDisabled", json!({ "cacheDisabled": true }));
    browser.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": FILLED }));
    let (mut painted, mut filled) = (Vec::new(), Vec::new());
    for _ in 0..opened {
        browser.call("Page.navigate", json!({ "url": "about:blank" }));
        browser.open(address);
        browser.until(
            "the page is painted and filled",
            "performance.getEntriesByName('first-contentful-paint').length === 1 && window.filledAt > 0",
        );
        let times =
            browser.value("[performance.getEntriesByName('first-contentful-paint')[0].startTime, window.filledAt]");
        painted.push(number(&times[0]));
        filled.push(number(&times[1]));
    }
    let said = |times: &[f64]| format!("{:.0} ms / {:.0} ms", percentile(times, 0.5), percentile(times, 1.0));
    let worst = percentile(&painted, 1.0);
    vec![
        Row::new(format!("first paint of the dashboard, nothing cached, p50 / longest of {opened}"), said(&painted))
            .goal("≤ 300 ms", worst <= FIRST_PAINT_MS_MAX),
        Row::new("the same until the overview says how the member is", said(&filled)),
    ]
}

/// How fluid the views of many rows are.
fn crowd(browser: &mut Browser, address: &str) -> Vec<Row> {
    browser.open(address);
    let frames = FRAMES.replace("LOOKED_AT", &LOOKED_AT.as_millis().to_string());
    let views = [
        ("sessions", format!("document.querySelectorAll('tbody tr').length >= {NODES}")),
        ("peers", format!("document.querySelectorAll('tbody tr').length >= {NODES}")),
        ("network", "document.querySelectorAll('.map .peer').length > 40".to_owned()),
    ];
    let row = |(view, is_drawn): (&str, String)| {
        let began = Instant::now();
        browser.value(&format!("location.hash = '#/{view}'"));
        browser.until(&format!("{view} shows them"), &is_drawn);
        let shown = began.elapsed();
        let times: Vec<f64> = browser.value(&frames).as_array().into_iter().flatten().map(number).collect();
        let longest = percentile(&times, 1.0);
        let what = format!("{view} of {NODES} nodes that beat every second: between two frames, p50 / p99 / longest");
        let said = format!("{:.0} ms / {:.0} ms / {longest:.0} ms", percentile(&times, 0.5), percentile(&times, 0.99));
        Row::new(what, said)
            .beside(format!("shown after {:.0} ms", shown.as_secs_f64() * 1e3))
            .goal("no pause > 100 ms", longest <= PAUSE_MS_MAX)
    };
    views.into_iter().map(row).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
