//! The dashboard in a real browser: what it shows is what is, and nothing of it comes from elsewhere.

use serde_json::{Value, json};

use crate::harness::{Browser, Federation, Member, PATIENCE, Spec, Way, muster, until_true};

/// Gives what of the page somebody could not use, in words.
const ACCESSIBILITY: &str = include_str!("page/accessibility.js");

const VIEWS: [&str; 14] = [
    "overview",
    "alerts",
    "actors",
    "network",
    "pool",
    "peers",
    "sessions",
    "search",
    "resources",
    "partners",
    "planner",
    "outbox",
    "bus",
    "config",
];

/// All that takes the focus, in the page or in a dialogue that is open.
const STOPS: &str = "[...(document.querySelector('dialog[open]') ?? document).querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')]
    .filter((one) => !one.disabled && one.checkVisibility() && one.getClientRects().length > 0)";

/// Goes to a view, and waits until it has drawn something and nothing is awaited any more.
#[track_caller]
fn go(browser: &mut Browser, view: &str) {
    browser.value(&format!("location.hash = '#/{view}'"));
    let name = view.split('/').next().unwrap();
    let drawn = "![...document.querySelectorAll('main .note, main dd')].some((one) => /^(Loading|Chargement)/.test(one.textContent))";
    browser.until(
        &format!("{view} is drawn"),
        &format!("document.querySelector('main').dataset.view === '{name}' && {drawn}"),
    );
}

/// Waits until a part of the page says these words.
#[track_caller]
fn says(browser: &mut Browser, selector: &str, words: &str) {
    let (selector, text) = (json!(selector), json!(words));
    browser.until(
        &format!("{selector} says {words}"),
        &format!("document.querySelector({selector}).textContent.replaceAll('\\u00a0', ' ').includes({text})"),
    );
}

#[track_caller]
fn assert_usable_by_all(browser: &mut Browser, view: &str) {
    assert_eq!(browser.value(ACCESSIBILITY), json!([]), "{view}");
}

/// Whoever has no mouse comes to everything, sees where it is, and comes out again.
#[track_caller]
fn assert_usable_by_keyboard(browser: &mut Browser, view: &str) {
    let begin = "document.querySelector('.skip').focus()";
    let stops = browser.value(&format!("{begin}; window.stops = {STOPS}; window.reached = new Set(); stops.length"));
    // Some more than there are: a browser has stops of its own, and lines come and go.
    for _ in 0..stops.as_u64().unwrap() + 12 {
        browser.value("reached.add(document.activeElement)");
        let unseen = browser.value(
            "document.activeElement !== document.body && getComputedStyle(document.activeElement).outlineStyle === 'none'
                && document.activeElement.outerHTML.slice(0, 160)",
        );
        assert_eq!(unseen, false, "{view}: the focus is not seen");
        browser.press("Tab", "", 9);
    }
    let missed = browser.value(
        "stops.filter((stop) => stop.isConnected && !reached.has(stop)).map((stop) => stop.outerHTML.slice(0, 160))",
    );
    assert_eq!(missed, json!([]), "{view}: no key leads there");
}

/// Types into what has the focus and presses Enter.
#[track_caller]
fn enter(browser: &mut Browser, text: &str) {
    browser.call("Input.insertText", json!({ "text": text }));
    browser.press("Enter", "\r", 13);
}

/// Nothing went wrong in the page, and nobody else was asked.
#[track_caller]
fn assert_clean(browser: &mut Browser, of: &[&Member]) {
    browser.value("1");
    assert_eq!(browser.complaints(), [] as [String; 0]);
    let ours: Vec<String> = of.iter().map(|member| format!("http://{}/", member.admin())).collect();
    let strange: Vec<&String> = browser
        .requests()
        .iter()
        .filter(|url| !url.starts_with("data:") && !ours.iter().any(|own| url.starts_with(own)))
        .collect();
    assert!(strange.is_empty() && browser.requests().len() > 20, "{strange:?}");
}

fn by(member: &Member, args: &[&str]) {
    muster(&[&["--config", member.config().to_str().unwrap()], args].concat()).ok();
}

/// Two partners, one of which offers something.
fn share(paris: &Member, lyon: &Member) {
    for (from, to) in [(paris, lyon), (lyon, paris)] {
        by(from, &["partner", "add", &to.peer_id, "--name", &to.name]);
    }
    let file = paris.dir.join("farm.json");
    let farm = json!({ "id": "farm-1", "kind": "compute", "name": "Wind farm", "access": "public" });
    std::fs::write(&file, farm.to_string()).unwrap();
    by(paris, &["resource", "put", file.to_str().unwrap()]);
}

#[test]
fn the_dashboard_shows_what_is_in_every_view() {
    let Some(mut browser) = Browser::started("page::the_dashboard_shows_what_is_in_every_view") else { return };
    // A curve has a point at each judgement.
    let federation = Federation::started(2, &["paris", "lyon"], |spec| spec.set("score.judge_every", "\"1s\""));
    federation.until_converged();
    let (paris, first) = (federation.member("paris"), federation.member("indexer-1"));
    share(paris, federation.member("lyon"));
    by(paris, &["planner", "open", &federation.member("lyon").peer_id]);
    browser.resize(1280);
    browser.prefer("light");
    browser.open(&format!("http://{}/", paris.admin()));

    browser.until(
        "something is painted, and the browser knows when",
        "performance.getEntriesByName('first-contentful-paint')[0].startTime > 0",
    );
    says(&mut browser, "#member", "paris node");
    says(&mut browser, "#link", "connected");
    says(&mut browser, ".tiles", "whole");
    says(&mut browser, ".tiles", "2 of 2 answer");
    says(&mut browser, ".facts", &paris.peer_id);
    says(&mut browser, "[role=log]", "pool member answers");
    go(&mut browser, "alerts");
    says(&mut browser, "main", "Nothing is wrong");
    go(&mut browser, "actors");
    says(&mut browser, "tr[data-key='root/node/pool'][data-state=running]", "pool");
    says(&mut browser, "[data-summary]", "0 not well");
    go(&mut browser, "network");
    browser.until("both indexers are in the drawing", "document.querySelectorAll('.map .peer.good rect').length === 2");
    go(&mut browser, "pool");
    says(&mut browser, &format!("tr[data-key='{}']", first.peer_id), "indexer-1");
    go(&mut browser, &format!("pool/{}", first.peer_id));
    says(&mut browser, "main section", "latency");
    says(&mut browser, "main section", "judged by the upper end");
    says(&mut browser, "main section details:last-of-type", "answered");
    browser.until("both scores are drawn over time", "document.querySelectorAll('main .curve polyline').length === 2");
    browser.until(
        "so is this one with its threshold, and each part for itself",
        "document.querySelectorAll('.plot .line.score').length > 2 && document.querySelector('.plot .line.threshold')",
    );
    says(&mut browser, "main figcaption", "%");
    browser.shoot("pool-why");
    go(&mut browser, "peers");
    says(&mut browser, &format!("tr[data-key='{}']", first.peer_id), "connected");
    go(&mut browser, "sessions");
    says(&mut browser, "main", "Only indexers have sessions");
    go(&mut browser, "resources");
    says(&mut browser, &format!("tr[data-key='{}/farm-1']", paris.peer_id), "Wind farm");
    go(&mut browser, "partners");
    says(&mut browser, "main table", "lyon");
    go(&mut browser, "planner");
    says(&mut browser, "main table", "lyon");
    go(&mut browser, "config");
    says(&mut browser, "tr[data-key='node.name']", "paris");
    says(&mut browser, "tr[data-key='node.name']", "muster.toml:");
    says(&mut browser, "tr[data-key='pool.max_indexer']", "built in");
    says(&mut browser, "[data-summary]", "0 waiting for a restart");
    let answer = paris.patch("/api/v1/config", r#"{"behaviour.peers_max": 40000}"#);
    assert_eq!(answer.code, 200, "{answer:?}");
    says(&mut browser, "tr[data-waiting][data-key='behaviour.peers_max']", "after a restart: 40000");
    go(&mut browser, "config/waiting");
    browser.until("it alone waits", "document.querySelectorAll('tbody tr').length === 1");
    go(&mut browser, "outbox");
    says(&mut browser, "main table", "delivered");
    go(&mut browser, "bus");
    says(&mut browser, "main", "This member has no bus");

    go(&mut browser, "search");
    enter(&mut browser, "par");
    says(&mut browser, "[data-progress]", "complete 1 found");
    says(&mut browser, ".hits", &paris.peer_id);
    browser.value("document.querySelector('.search select').value = 'resources'");
    browser.value("document.querySelector('.search select').dispatchEvent(new Event('change'))");
    browser.value("document.querySelector('#search-text').select()");
    enter(&mut browser, "wind");
    says(&mut browser, "[data-progress]", "1 found");
    says(&mut browser, ".hits", "Wind farm");
    // Up to here nothing was asked for that is not there, so the console is empty.
    browser.value("1");
    assert_eq!(browser.refusals(), [] as [&str; 0]);
    browser.value("document.querySelector('.search select').value = 'members'");
    browser.value("document.querySelector('#search-text').select()");
    enter(&mut browser, " ");
    says(&mut browser, "[data-progress]", "The daemon answers:");

    let before = browser.refusals().len();
    for (scheme, language, width) in [("light", "en", 1280), ("dark", "fr", 390)] {
        browser.prefer(scheme);
        browser.resize(width);
        browser.value(&format!("document.querySelector('#language').value = '{language}'"));
        browser.value("document.querySelector('#language').dispatchEvent(new Event('change'))");
        for view in VIEWS {
            go(&mut browser, view);
            assert_usable_by_all(&mut browser, view);
            browser.shoot(&format!("{view}-{scheme}-{language}-{width}"));
            assert_usable_by_keyboard(&mut browser, view);
        }
    }
    assert_eq!(browser.refusals().len(), before, "{:?}", browser.refusals());
    // The choice is kept, and what the browser has is not sent again.
    browser.call("Page.reload", json!({}));
    browser
        .until("it is French again", "document.documentElement.lang === 'fr' && document.querySelector('tbody, dl')");

    browser.open(&format!("http://{}/#/sessions", first.admin()));
    for member in federation.running().filter(|member| member.name != first.name) {
        browser.until(
            &format!("{} has a session", member.name),
            &format!("document.querySelector(\"tr[data-key='{}']\")", member.peer_id),
        );
    }
    assert_clean(&mut browser, &[paris, first]);
}

#[test]
fn faults_appear_in_the_dashboard_and_heal_there() {
    let Some(mut browser) = Browser::started("page::faults_appear_in_the_dashboard_and_heal_there") else { return };
    let mut federation = Federation::started(2, &["paris"], |spec: Spec| spec.variable("MUSTER_CHAOS", "1"));
    federation.until_converged();
    let second = federation.member("indexer-2").peer_id.clone();
    browser.resize(1280);
    browser.open(&format!("http://{}/#/actors", federation.member("paris").admin()));

    let row = "tr[data-key='root/score']";
    says(&mut browser, row, "running");
    let answer = federation.member("paris").tell("/api/v1/chaos/actors/root/score", r#"{"fault":"panic"}"#);
    assert_eq!(answer.code, 204, "{answer:?}");
    browser.until("its cause is shown", &format!("{}.includes('panic')", cell("root/score", "Last failure")));
    browser.until("the restart is counted", &format!("document.querySelector(\"{row}\").cells[3].textContent === '1'"));
    says(&mut browser, &format!("{row}[data-state=running]"), "score");
    says(&mut browser, "[data-summary]", "0 not well, restarts: 1");
    browser.shoot("actors-restarted");

    // By keyboard alone.
    browser.value("document.querySelector(\"tr[data-key='root/node'] button\").focus()");
    browser.press("Enter", "\r", 13);
    browser.until("the branch is folded", "!document.querySelector(\"tr[data-key='root/node/pool']\")");
    browser.press("Enter", "\r", 13);
    browser.until("the branch is unfolded", "document.querySelector(\"tr[data-key='root/node/pool']\")");
    assert_eq!(browser.value("document.activeElement.closest('tr').dataset.key"), "root/node");
    browser.value("document.querySelector('.skip').click()");
    assert_eq!(browser.value("[document.activeElement.id, location.hash]"), json!(["main", "#/actors"]));

    go(&mut browser, "network");
    let healthy = format!("document.querySelector(\".map [data-peer='{second}'].good\")");
    browser.until("the second indexer answers", &healthy);
    federation.member_mut("indexer-2").kill();
    browser.until("its end shows", &format!("!{healthy}"));
    browser.shoot("network-indexer-killed");
    federation.member_mut("indexer-2").start();
    browser.until_within("it has returned", 2 * PATIENCE, &healthy);
    go(&mut browser, "overview");
    says(&mut browser, "[role=log]", "pool member suspected");
    says(&mut browser, "[role=log]", "actor restarted");

    federation.member_mut("paris").kill();
    says(&mut browser, "#link", "connection lost since");
    browser.shoot("overview-lost");
    federation.member_mut("paris").start();
    federation.member("paris").until_whole();
    says(&mut browser, "#link", "connected");
    until_true("the new life is shown, and nothing of the last one", PATIENCE, || {
        let log = browser.value("document.querySelector('[role=log]').textContent");
        log.as_str().is_some_and(|log| log.contains("whole") && !log.contains("restarted"))
    });
    assert_clean(&mut browser, &[federation.member("paris")]);
}

/// What the row of an actor shows in the column of this head.
fn cell(actor: &str, head: &str) -> String {
    format!(
        "document.querySelector(\"tr[data-key='{actor}']\")
            .cells[[...document.querySelectorAll('thead th')].findIndex((one) => one.textContent === '{head}')].textContent"
    )
}

#[test]
fn an_actor_is_restarted_by_hand_with_the_token_which_the_page_forgets() {
    let name = "page::an_actor_is_restarted_by_hand_with_the_token_which_the_page_forgets";
    let Some(mut browser) = Browser::started(name) else { return };
    let federation = Federation::started(1, &["paris"], |spec| spec.variable("MUSTER_CHAOS", "1"));
    federation.until_converged();
    let paris = federation.member("paris");
    let token = std::fs::read_to_string(paris.dir.join("data/admin.token")).unwrap().trim().to_owned();
    browser.resize(1280);
    browser.open(&format!("http://{}/#/actors", paris.admin()));

    // It does not answer, which the view that asks it says, and the tree too.
    let stuck = paris.tell("/api/v1/chaos/actors/root/peers", r#"{"fault":"stall","ms":600000}"#);
    assert_eq!(stuck.code, 204, "{stuck:?}");
    browser.value("location.hash = '#/peers'");
    says(&mut browser, "main .note", "Loading");
    says(&mut browser, "main .note.wrong", "The daemon answers: root/peers did not answer");
    browser.shoot("peers-failed");
    go(&mut browser, "actors");
    says(&mut browser, "tr[data-key='root/peers'][data-state=stuck]", "stuck, busy for");
    browser.shoot("actors-stuck");

    // By keyboard alone: first a wrong token, then the right one.
    let button = "document.querySelector(\"tr[data-key='root/peers'] [data-press=restart]\")";
    browser.value(&format!("{button}.focus()"));
    browser.press("Enter", "\r", 13);
    says(&mut browser, "dialog[open] h2", "Restart root/peers");
    assert_usable_by_all(&mut browser, "the dialogue");
    browser.shoot("actors-dialogue");
    enter(&mut browser, &"0".repeat(64));
    says(
        &mut browser,
        "dialog [role=alert]",
        "The daemon answers: the token is neither that of data/admin.token nor one that was made here",
    );
    enter(&mut browser, &token);
    browser.until("the order is given", "!document.querySelector('dialog')");
    assert_eq!(browser.value(&format!("document.activeElement === {button}")), true);
    browser.until("the restart is counted", &format!("{} === '1'", cell("root/peers", "Restarts")));
    browser.until("so is its cause", &format!("{} === 'restarted by hand'", cell("root/peers", "Last failure")));
    says(&mut browser, "tr[data-key='root/peers'][data-state=running]", "peers");
    browser.shoot("actors-restarted-by-hand");
    go(&mut browser, "peers");
    browser.until(
        "the view is whole again",
        "document.querySelectorAll('tbody tr').length > 0 && !document.querySelector('.wrong')",
    );

    // Once given it is not asked for again, and whoever escapes has ordered nothing.
    go(&mut browser, "actors");
    let other = "document.querySelector(\"tr[data-key='root/score'] [data-press=restart]\")";
    browser.until("it can be restarted", other);
    browser.value(&format!("{other}.click()"));
    assert_eq!(browser.value("document.querySelector('dialog input').checkVisibility()"), false);
    browser.press("Escape", "", 27);
    browser.until("nothing is ordered", "!document.querySelector('dialog')");
    browser.value(&format!("{other}.click()"));
    browser.press("Enter", "\r", 13);
    browser.until("another one is restarted", &format!("{} === '1'", cell("root/score", "Restarts")));
    assert_eq!(browser.value("document.querySelector(\"tr[data-key='root'] [data-press=restart]\")"), Value::Null);

    // It is nowhere that another page or a later one could find it.
    let kept = browser
        .value("[JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie, location.href].join()");
    assert!(!kept.as_str().unwrap().contains(&token), "{kept}");
    browser.value("window.isFormer = true");
    browser.call("Page.reload", json!({}));
    browser.until("the page is another", &format!("!window.isFormer && {other}"));
    browser.value(&format!("{other}.click()"));
    assert_eq!(browser.value("document.querySelector('dialog input').checkVisibility()"), true);
    enter(&mut browser, " ");
    says(&mut browser, "dialog [role=alert]", "The admin token is needed");
    browser.press("Escape", "", 27);

    // The endpoint's own rules hold for whoever is no page, too.
    let path = |actor: &str| format!("/api/v1/actors/{actor}/restart");
    assert_eq!(paris.tell_without_token(&path("root%2Fscore"), "").code, 401);
    for (actor, code, words) in [
        ("root", 409, "root is the process itself: restart the service instead"),
        ("root%2Fnobody", 404, "no such actor: root/nobody"),
    ] {
        let answer = paris.tell(&path(actor), "");
        assert!(answer.code == code && answer.body.contains(words), "{actor}: {answer:?}");
    }
    assert_clean(&mut browser, &[paris]);
}

#[test]
fn what_strangers_say_is_text_and_only_what_changed_is_drawn_again() {
    let name = "page::what_strangers_say_is_text_and_only_what_changed_is_drawn_again";
    let Some(mut browser) = Browser::started(name) else { return };
    let federation = Federation::started(1, &[], |spec| spec);
    let member = federation.member("indexer-1");
    member.until_listening();
    browser.open(&format!("http://{}/#/bus", member.admin()));
    says(&mut browser, "main", "This member has no bus");

    let shown = browser.value(
        r#"import("/dashboard/draw.js").then(({ fill, make, strong }) => {
            const cell = make("td", { title: "a\u202eb" });
            fill(cell, [strong("<img src=x onerror=alert(1)>\u202e"), "\u0007&amp;"]);
            return [cell.textContent, cell.querySelectorAll("img").length, cell.title];
        })"#,
    );
    assert_eq!(shown, json!(["<img src=x onerror=alert(1)>\u{fffd}\u{fffd}&amp;", 0, "a\u{fffd}b"]));
    let refused =
        browser.value("(() => { try { document.body.innerHTML = '<p>'; } catch (error) { return error.name; } })()");
    assert_eq!(refused, "TypeError", "the policy lets no text be markup");

    let counts: Value = browser.value(
        r#"import("/dashboard/draw.js").then(async ({ Table }) => {
            const main = document.querySelector("main");
            const columns = [
                { head: "name", name: true, cell: ({ id }) => `node-${id}` },
                { head: "beats", number: true, cell: ({ beats }) => String(beats) },
            ];
            const table = new Table(main, { caption: "sessions", key: ({ id }) => id, empty: "no_sessions", columns });
            const rows = Array.from({ length: 500 }, (_, id) => ({ id, beats: 1 }));
            table.show(rows);
            const changes = [];
            const watching = new MutationObserver((seen) => changes.push(...seen));
            watching.observe(main.lastElementChild.previousElementSibling, { subtree: true, childList: true, characterData: true });
            const after = async (next) => {
                table.show(next);
                await Promise.resolve();
                return changes.splice(0).length;
            };
            const same = await after(rows.map((row) => ({ ...row })));
            const changed = rows.map((row) => (row.id === 250 ? { ...row, beats: 2 } : row));
            const one = await after(changed);
            const gone = await after(changed.slice(1));
            return [same, one, gone, main.querySelectorAll("tbody tr").length];
        })"#,
    );
    assert_eq!(counts, json!([0, 1, 1, 499]));
}

/// Written into the page before its own modules: what is to be asked for again after a while never is, so that all that is
/// new was asked for because of an event.
const NO_POLLS: &str = "const wait = window.setTimeout;
    window.setTimeout = (then, after, ...rest) => (after < 5000 ? wait(then, after, ...rest) : 0);";

#[test]
fn what_happens_is_shown_at_once_and_once_also_over_a_cut() {
    let Some(mut browser) = Browser::started("page::what_happens_is_shown_at_once_and_once_also_over_a_cut") else {
        return;
    };
    browser.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": NO_POLLS }));
    let mut federation = Federation::converged(2, &["paris", "lyon"]);
    let (second, lyon) = (federation.member("indexer-2").peer_id.clone(), federation.member("lyon").peer_id.clone());
    let paris = federation.member("paris");
    let way = Way::to(paris.admin());
    browser.resize(1280);
    browser.open(&format!("http://{}/#/actors", way.address()));

    says(&mut browser, "tr[data-key='root/score']", "running");
    by(paris, &["restart", "root/score"]);
    browser.until("the restart is counted", &format!("{} === '1'", cell("root/score", "Restarts")));

    go(&mut browser, "partners");
    by(paris, &["partner", "add", &lyon, "--name", "lyon"]);
    says(&mut browser, "main table", "lyon");

    go(&mut browser, "overview");
    says(&mut browser, "#link", "connected");
    way.cut();
    says(&mut browser, "#link", "connection lost since");
    by(paris, &["restart", "root/gc"]);
    way.mend();
    says(&mut browser, "#link", "connected");
    let told = |actor: &str| {
        format!(
            "[...document.querySelectorAll('[role=log] li')]
                .filter(({{ textContent: line }}) => line.includes('{actor}') && line.includes('actor restarted')).length"
        )
    };
    browser.until("what happened meanwhile is told", &format!("{} > 0", told("root/gc")));
    assert_eq!(browser.value(&told("root/gc")), 1);
    assert_eq!(browser.value(&told("root/score")), 1, "what was told before is not told again");
    assert!(way.asked().contains("\r\nlast-event-id: "), "the browser says up to where it heard");

    go(&mut browser, "pool");
    let row = format!("tr[data-key='{second}']");
    says(&mut browser, &row, "answering");
    federation.member_mut("indexer-2").kill();
    browser.until("its end shows", &format!("!document.querySelector(\"{row}\")?.textContent.includes('answering')"));
    let asked = |path: &str| browser.requests().iter().filter(|url| url.contains(path)).count();
    assert_eq!(asked("/api/v1/events?"), 0, "events are heard, and not asked for");
    assert!(asked("/api/v1/events/stream") > 0 && browser.complaints().is_empty(), "{:?}", browser.complaints());
}

#[test]
fn a_search_shows_where_its_time_went() {
    let Some(mut browser) = Browser::started("page::a_search_shows_where_its_time_went") else { return };
    let federation = Federation::converged(2, &["paris", "lyon"]);
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    share(paris, lyon);
    browser.resize(1280);
    browser.prefer("light");
    browser.open(&format!("http://{}/#/search", paris.admin()));

    browser.until("the view is there", "document.querySelector('#search-text')");
    browser.value("document.querySelector('#search-text').focus()");
    enter(&mut browser, "lyon");
    says(&mut browser, ".hits", &lyon.peer_id);
    assert_eq!(
        browser.value("document.querySelector('[data-trace]')"),
        Value::Null,
        "it is traced where that is wanted"
    );

    browser.value("document.querySelector('[data-traced]').click()");
    browser.value("document.querySelector('#search-text').focus()");
    browser.press("Enter", "\r", 13);
    says(&mut browser, "[data-trace]", "ms in all; trace");
    says(&mut browser, "main table", "indexer-1");
    says(&mut browser, "main table", "answered");
    let asked = "document.querySelectorAll('main tbody tr').length";
    let marked =
        "[...document.querySelectorAll('main tbody tr')].filter((row) => row.querySelector('.spans rect')).length";
    assert_eq!(browser.value(asked), browser.value(marked), "each of those who were asked has a bar");
    assert_usable_by_all(&mut browser, "search");
    assert_usable_by_keyboard(&mut browser, "search");
    browser.shoot("search-trace");

    // The next one takes its place, in the other language as well.
    browser.value("document.querySelector('#language').value = 'fr'");
    browser.value("document.querySelector('#language').dispatchEvent(new Event('change'))");
    browser.prefer("dark");
    browser.resize(390);
    browser.value("document.querySelector('[data-traced]').click()");
    browser.value("document.querySelector('.search select').value = 'resources'");
    browser.value("document.querySelector('.search select').dispatchEvent(new Event('change'))");
    browser.value("document.querySelector('#search-text').focus()");
    enter(&mut browser, "wind");
    says(&mut browser, ".hits", "Wind farm");
    says(&mut browser, "main", "Où le temps est passé");
    assert_eq!(browser.value("document.querySelectorAll('[data-trace]').length"), 1);
    assert_usable_by_all(&mut browser, "search");
    browser.shoot("search-trace-dark-fr-390");
    assert_clean(&mut browser, &[paris]);
}
