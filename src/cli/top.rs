//! `muster top`: a live view of a member in the terminal: peers, actors, searches, events.
//!
//! [`state`] knows what is to be seen and [`draw`] draws it; neither touches a terminal. This file asks, hears keys and owns
//! the screen.

mod draw;
mod state;

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use self::state::{Key, Seen, State};
use super::{
    Context,
    client::Client,
    exit::{Exit, Failure, unwritten},
    output::Output,
};

/// Often enough to see what happens, seldom enough to read.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long the thread that hears keys waits for one before it looks whether anybody still wants them.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// Keys that are pressed faster than they are drawn; further ones are dropped.
const KEYS_MAX: usize = 32;

/// Asks and draws until it is told to quit.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !is_terminal || context.output != Output::Table {
        return Err(Failure::new(Exit::Usage, "`top` draws on a terminal, and this is none")
            .next("for programs there are `muster status`, `tree`, `peers` and `events` with --output json"));
    }
    let client = context.client()?;
    // Somebody who is not there is said in words that stay, before the screen is taken.
    let first = ask(&client, 0).await?;
    // Heard before the screen is taken: by default it would end the process at once, with the terminal raw.
    let mut ended = signal(SignalKind::terminate()).map_err(|cause| unwritten(&cause))?;
    let mut screen = Screen(ratatui::try_init().map_err(|cause| unwritten(&cause))?);
    let mut state = State::new(first, Instant::now());
    tokio::select! {
        left = live(&mut screen.0, &client, &mut state) => left,
        _ = ended.recv() => Err(Failure::interrupted()),
    }
}

/// The terminal while it is ours; given back however the verb ends, by a signal from elsewhere and by a panic too.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn live(terminal: &mut DefaultTerminal, client: &Client, state: &mut State) -> Result<(), Failure> {
    let mut keys = keys();
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first look was just made.
    ticks.reset();
    loop {
        terminal.draw(|frame| draw::draw(frame, state)).map_err(|cause| unwritten(&cause))?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(key) if state.press(key) => {}
                // The keyboard is gone, too, when the terminal is.
                _ => return Ok(()),
            },
            _ = ticks.tick() => match ask(client, state.last_event()).await {
                Ok(seen) => state.took(seen, Instant::now()),
                // Someone who watches wants to see it come back.
                Err(failure) => state.missed(&failure),
            },
        }
    }
}

async fn ask(client: &Client, since: u64) -> Result<Seen, Failure> {
    let events = format!("/api/v1/events?since={since}");
    let (status, actors, peers, events, metrics) = tokio::join!(
        client.get("/api/v1/status"),
        client.get("/api/v1/actors"),
        client.get("/api/v1/peers"),
        client.get(&events),
        client.text("/metrics"),
    );
    Ok(Seen { status: status?, actors: actors?, peers: peers?, events: events?, metrics: metrics? })
}

/// The keys as they are pressed, from a thread of their own: a terminal is read by waiting.
fn keys() -> mpsc::Receiver<Key> {
    let (pressed, keys) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        while !pressed.is_closed() {
            let event = match event::poll(KEY_WAIT) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(cause) => Err(cause),
            };
            let Ok(event) = event else { return };
            if let Some(key) = key(&event) {
                // Whoever holds a key down does not want each press.
                let _ = pressed.try_send(key);
            }
        }
    });
    keys
}

/// What a key means; a change of the window's size is drawn as anything else is.
fn key(event: &Event) -> Option<Key> {
    let key = match event {
        Event::Resize(..) => return Some(Key::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Tab | KeyCode::Right => Key::Next,
        KeyCode::BackTab | KeyCode::Left => Key::Previous,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Top,
        KeyCode::Char(letter) => Key::Letter(letter),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_mean_what_people_expect() {
        let pressed = |code, modifiers| key(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |code| pressed(code, KeyModifiers::NONE);
        assert_eq!(plain(KeyCode::Char('q')), Some(Key::Quit));
        assert_eq!(plain(KeyCode::Esc), Some(Key::Quit));
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(plain(KeyCode::Char('c')), Some(Key::Letter('c')));
        assert_eq!(plain(KeyCode::Tab), Some(Key::Next));
        assert_eq!(plain(KeyCode::F(1)), None);
        assert_eq!(key(&Event::Resize(80, 24)), Some(Key::Redraw));
    }
}
