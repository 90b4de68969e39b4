//! How the verbs speak to the demo in the foreground: one line of JSON each way on a socket in its folder.
//!
//! The demo does to its members what is asked, and not the verb: only the parent of a process knows that its id still
//! means it, and a member that is started must be the demo's child to die with it.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{
    Error,
    state::{Folder, Member, State},
};

/// Most bytes of a line: a request has under 100, an answer with one member under 1,000.
const LINE_BYTES_MAX: u64 = 8 * 1024;

/// Verbs write at once after they connected.
const REQUEST_DEADLINE: Duration = Duration::from_secs(2);

/// Longest that the demo may take to do what a verb asks: `down` gives the members 12 s and the watcher 5 s.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// What a verb asks of the demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Kill this member.
    Kill {
        /// Who.
        name: String,
    },
    /// Stop this member's process.
    Pause {
        /// Who.
        name: String,
    },
    /// Let it go on.
    Resume {
        /// Who.
        name: String,
    },
    /// Start a member that was killed or that ended.
    Start {
        /// Who.
        name: String,
    },
    /// End everything.
    Down,
}

/// What the demo answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Answer {
    /// It is done.
    Done {
        /// When.
        at: Timestamp,
        /// The member as it is now; none for `down`.
        member: Option<Member>,
    },
    /// It is not done.
    Refused(String),
    /// There is no such member.
    Unknown {
        /// What was asked for.
        name: String,
        /// Who there is.
        known: Vec<String>,
    },
}

/// Opens the socket of the demo in this folder.
///
/// # Errors
/// When the path is longer than a socket's may be (108 bytes), or the machine refuses.
pub(crate) fn listen(folder: &Folder) -> Result<UnixListener, Error> {
    let path = folder.socket();
    let what = || format!("listen on {}", path.display());
    let listener = UnixListener::bind(&path).map_err(Error::io(what()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(Error::io(what()))?;
    Ok(listener)
}

/// Reads the one request of a connection; nothing when there is none, which is the verb's business.
pub(crate) async fn request(stream: &mut UnixStream) -> Option<Request> {
    let line = timeout(REQUEST_DEADLINE, line(stream)).await.ok()?.ok()?;
    serde_json::from_str(&line).ok()
}

/// Writes the answer; a verb that no longer listens has its reasons.
pub(crate) async fn answer(stream: &mut UnixStream, answer: &Answer) {
    if let Ok(mut text) = serde_json::to_vec(answer) {
        text.push(b'\n');
        let _ = timeout(REQUEST_DEADLINE, stream.write_all(&text)).await;
    }
}

/// Asks the demo and waits until it is done.
///
/// # Errors
/// When the demo refuses, knows no such member, or does not answer in time.
pub(crate) async fn ask(
    folder: &Folder,
    demo: &State,
    request: &Request,
) -> Result<(Timestamp, Option<Member>), Error> {
    let silent = |cause: String| Error::Silent { pid: demo.pid, cause };
    let exchange = async {
        let mut stream = UnixStream::connect(folder.socket()).await?;
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
        line(&mut stream).await
    };
    let line = timeout(ANSWER_DEADLINE, exchange)
        .await
        .map_err(|_| silent(format!("no answer within {} s", ANSWER_DEADLINE.as_secs())))?
        .map_err(|error| silent(error.to_string()))?;
    match serde_json::from_str(&line).map_err(|error| silent(error.to_string()))? {
        Answer::Done { at, member } => Ok((at, member)),
        Answer::Refused(why) => Err(Error::Refused(why)),
        Answer::Unknown { name, known } => Err(Error::UnknownMember { name, known }),
    }
}

async fn line(stream: &mut UnixStream) -> std::io::Result<String> {
    let mut text = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn demo() -> State {
        State { pid: 1, started: Timestamp::UNIX_EPOCH, members: Vec::new() }
    }

    async fn exchange(reply: Answer) -> (Option<Request>, Result<(Timestamp, Option<Member>), Error>) {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path().to_owned());
        let listener = listen(&folder).unwrap();
        let request = Request::Kill { name: "paris".into() };
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = super::request(&mut stream).await;
            answer(&mut stream, &reply).await;
            asked
        };
        let demo = demo();
        tokio::join!(served, ask(&folder, &demo, &request))
    }

    #[tokio::test]
    async fn what_a_verb_asks_arrives_and_is_answered() {
        let (asked, answered) = exchange(Answer::Done { at: Timestamp::UNIX_EPOCH, member: None }).await;
        assert_eq!(asked, Some(Request::Kill { name: "paris".into() }));
        assert_eq!(answered.unwrap(), (Timestamp::UNIX_EPOCH, None));
    }

    #[tokio::test]
    async fn a_refusal_arrives_in_the_demos_words() {
        let (_, answered) = exchange(Answer::Refused("paris is paused already".into())).await;
        assert_eq!(answered.unwrap_err().to_string(), "paris is paused already");
    }

    #[tokio::test]
    async fn nobody_behind_the_socket_is_said() {
        let temp = tempfile::tempdir().unwrap();
        let answered = ask(&Folder::at(temp.path().to_owned()), &demo(), &Request::Down).await;
        assert!(matches!(answered, Err(Error::Silent { pid: 1, .. })));
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_at_its_bound() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let writing = async {
            let _ = theirs.write_all(&vec![b' '; usize::try_from(LINE_BYTES_MAX).unwrap() * 2]).await;
        };
        let (asked, ()) = tokio::join!(request(&mut ours), async {
            let _ = timeout(Duration::from_millis(200), writing).await;
        });
        assert_eq!(asked, None);
    }
}
