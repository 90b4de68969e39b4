//! Draws what `muster top` knows; the same state is always the same picture.

use actors::view::{ActorState, ActorView, EventView, PeerView, Standing};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, Tabs},
};

use super::state::{Figure, State, View};
use crate::cli::{
    output::{clean, micros, or_dash, span},
    status::role,
};

/// Keys, as they are named below.
const KEYS: &str = "1-4 or Tab: views   arrows, PgUp, PgDn: scroll   q: quit";

/// The whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let areas =
        Layout::vertical([Constraint::Length(2), Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]);
    let [head, tabs, body, foot] = areas.areas(frame.area());
    frame.render_widget(overview(state), head);
    let titles = View::ALL.iter().zip(1..).map(|(view, number)| format!("{number} {}", view.title()));
    let chosen = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Tabs::new(titles).select(state.view.place()).highlight_style(chosen), tabs);
    let table = match state.view {
        View::Peers => peers(&state.peers, state.offset),
        View::Actors => actors(&state.actors, state.offset),
        View::Searches => searches(&state.figures, state.offset),
        View::Events => events(state.events.iter().skip(state.offset)),
    };
    frame.render_widget(table, body);
    frame.render_widget(Paragraph::new(last_line(state, body)), foot);
}

fn overview(state: &State) -> Paragraph<'_> {
    let status = &state.status;
    let (word, hue) = match status.standing {
        Standing::Whole => ("whole", Color::Green),
        Standing::Joined => ("joined", Color::Green),
        Standing::Joining => ("joining", Color::Yellow),
        Standing::Isolated => ("isolated", Color::Red),
        Standing::Leaving => ("leaving", Color::Yellow),
    };
    let first = Line::from(vec![
        Span::styled(clean(&status.name), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(" ({})  ", role(status.role))),
        Span::styled(word, Style::new().fg(hue)),
        Span::raw(format!(
            "  up {}  pool {}/{}  {} sessions  {} connections  {}",
            span(status.uptime_ms),
            status.pool_answering,
            status.pool_members,
            status.sessions,
            status.connections,
            if status.store_ok { "database answers" } else { "database away" },
        )),
    ]);
    let second = match (&state.trouble, status.reasons.first()) {
        (Some(trouble), _) => Line::styled(format!("old: {}", clean(trouble)), Style::new().fg(Color::Red)),
        (None, Some(reason)) => Line::styled(clean(reason), Style::new().fg(Color::Yellow)),
        (None, None) => Line::default(),
    };
    Paragraph::new(vec![first, second])
}

fn table<'a, const N: usize>(
    header: [&'static str; N],
    widths: [Constraint; N],
    rows: impl Iterator<Item = Row<'a>>,
) -> Table<'a> {
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    Table::new(rows, widths).header(header).column_spacing(2)
}

fn peers(peers: &[PeerView], offset: usize) -> Table<'_> {
    let rows = peers.iter().skip(offset).map(|peer| {
        let link = match peer.connected {
            true => Cell::from("open").style(Style::new().fg(Color::Green)),
            false => Cell::from("–"),
        };
        let address = peer.addrs.first().map_or_else(|| "–".to_owned(), |addr| clean(&addr.addr.to_string()));
        Row::new([
            Cell::from(or_dash(&peer.name)),
            Cell::from(role(peer.role)),
            link,
            Cell::from(peer.peer_id.to_string()),
            Cell::from(address),
        ])
    });
    let widths = [
        Constraint::Length(20),
        Constraint::Length(8),
        Constraint::Length(5),
        Constraint::Length(52),
        Constraint::Min(10),
    ];
    table(["name", "role", "link", "peer id", "address"], widths, rows)
}

fn actors(actors: &[ActorView], offset: usize) -> Table<'_> {
    let rows = actors.iter().skip(offset).map(|actor| {
        let (word, hue) = match actor.state {
            ActorState::Starting => ("starting", Color::Cyan),
            ActorState::Running => ("running", Color::Green),
            ActorState::Stuck => ("stuck", Color::Red),
            ActorState::Waiting => ("waiting", Color::Yellow),
            ActorState::Stopped => ("stopped", Color::DarkGray),
        };
        Row::new([
            Cell::from(clean(&actor.name)),
            Cell::from(word).style(Style::new().fg(hue)),
            Cell::from(span(actor.uptime_ms)),
            Cell::from(actor.restarts.to_string()),
            Cell::from(actor.handled.to_string()),
            Cell::from(format!("{}/{}", actor.in_flight, actor.in_flight_max)),
            Cell::from(micros(actor.handle_p99_us)),
        ])
    });
    let widths = [
        Constraint::Min(24),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    table(["actor", "state", "uptime", "restarts", "handled", "in flight", "p99"], widths, rows)
}

fn searches(figures: &[Figure], offset: usize) -> Table<'_> {
    let rows = figures.iter().skip(offset).map(|figure| {
        Row::new([
            Cell::from(figure.words),
            Cell::from(format!("{:.0}", figure.now)),
            Cell::from(format!("{:.1}", figure.per_second)),
        ])
    });
    let widths = [Constraint::Length(52), Constraint::Length(12), Constraint::Length(12)];
    table(["since the start", "number", "per second"], widths, rows)
}

fn events<'a>(events: impl Iterator<Item = &'a EventView>) -> Table<'a> {
    let rows = events.map(|event| {
        Row::new([
            event.seq.to_string(),
            event.at.strftime("%H:%M:%S").to_string(),
            clean(&event.kind),
            clean(&event.subject),
            clean(&event.detail),
        ])
    });
    let widths = [
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(22),
        Constraint::Length(24),
        Constraint::Min(10),
    ];
    table(["#", "at (UTC)", "what", "about", "detail"], widths, rows)
}

fn last_line(state: &State, body: Rect) -> String {
    let rows = state.rows();
    // The header takes one.
    let shown = usize::from(body.height.saturating_sub(1));
    let last = rows.min(state.offset.saturating_add(shown));
    match rows {
        0 => format!("nothing here yet   {KEYS}"),
        _ => format!("{}-{last} of {rows}   {KEYS}", state.offset.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        super::state::{
            Key,
            tests::{actor, seen},
        },
        *,
    };
    use crate::cli::exit::{Exit, Failure};

    fn state() -> State {
        State::new(seen(1..=3), Instant::now())
    }

    /// What stands on a screen of this size, line by line.
    fn screen(state: &State, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(usize::from(width));
        cells
            .map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn the_overview_stands_above_every_view() {
        let mut state = state();
        for (view, row) in [("peers", "lyon"), ("actors", "root/stuck"), ("searches", "look-ups"), ("events", "peer-3")]
        {
            let lines = screen(&state, (120, 20));
            assert!(lines[0].starts_with("paris (node)  whole  up 1 min  pool 2/3"), "{lines:?}");
            assert!(lines[2].contains("1 peers") && lines[2].contains("4 events"), "{lines:?}");
            assert!(lines.iter().any(|line| line.contains(row)), "{view}: {lines:?}");
            assert!(lines[19].ends_with("q: quit"), "{lines:?}");
            state.press(Key::Next);
        }
    }

    #[test]
    fn nothing_that_a_peer_says_reaches_the_terminal_as_a_command() {
        let mut state = state();
        for _ in 0..4 {
            let all = screen(&state, (120, 20)).concat();
            assert!(!all.contains('\u{1b}'), "{all:?}");
            state.press(Key::Next);
        }
    }

    #[test]
    fn scrolling_moves_the_rows_and_says_which_are_shown() {
        let mut state = state();
        let last = |state: &State| screen(state, (120, 20)).pop().unwrap();
        assert!(last(&state).starts_with("1-14 of 30"), "{}", last(&state));
        state.press(Key::PageDown);
        assert!(last(&state).starts_with("21-30 of 30"), "{}", last(&state));
    }

    #[test]
    fn what_is_old_is_said_to_be() {
        let mut state = state();
        state.missed(&Failure::new(Exit::Unreachable, "no daemon answers at 127.0.0.1:7300"));
        assert_eq!(screen(&state, (120, 20))[1], "old: no daemon answers at 127.0.0.1:7300");
    }

    #[test]
    fn every_state_of_an_actor_has_a_word_beside_its_colour() {
        let mut state = state();
        let states = [
            (ActorState::Starting, "starting"),
            (ActorState::Running, "running"),
            (ActorState::Stuck, "stuck"),
            (ActorState::Waiting, "waiting"),
            (ActorState::Stopped, "stopped"),
        ];
        state.actors = states.map(|(state, word)| actor(&format!("root/{word}-one"), state, 0)).to_vec();
        state.press(Key::Letter('a'));
        let lines = screen(&state, (120, 20));
        for (_, word) in states {
            let line = lines.iter().find(|line| line.contains(&format!("{word}-one"))).unwrap();
            assert_eq!(line.matches(word).count(), 2, "{line}");
        }
    }

    #[test]
    fn a_window_of_one_cell_is_drawn_too() {
        let mut state = state();
        for size in [(1, 1), (2, 5), (200, 3)] {
            assert_eq!(screen(&state, size).len(), usize::from(size.1));
            state.press(Key::Next);
        }
    }
}
