//! `dejima console`: a machine's screen in one's own terminal. What comes is drawn from text and looks; nothing else is obeyed.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use clap::{Args, Subcommand};
use dejima_crds::door::{COLUMNS, Entry, FromPerson, KEYS_AT_ONCE, ROWS, Ticket, ToPerson, Why, plain, render};
use dejima_hostd::door::recording;
use futures::{SinkExt as _, StreamExt as _};
use kube::Config;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::dial::{Socket, dial, problem, token};
use crate::print;

/// The key that leaves: Ctrl-]. It never reaches the machine.
const LEAVE: u8 = 0x1d;

/// Which console.
#[derive(Debug, Args)]
pub(crate) struct ConsoleArguments {
    /// The machine, NAMESPACE/PROJECT/MACHINE
    machine: String,
    /// Only watch
    #[arg(long)]
    watch: bool,
    /// Where the platform's API answers
    #[arg(long, env = "DEJIMA_API")]
    api: String,
}

/// About recordings of visits.
#[derive(Debug, Subcommand)]
pub(crate) enum RecordingCommand {
    /// Checks a recording from its first byte to its last, and prints it as an asciicast
    Read {
        /// The folder of the visit on its host
        folder: PathBuf,
        /// What the record of the visit's end says, sha256:…
        #[arg(long)]
        head: String,
    },
}

/// A terminal that passes every key, until this goes.
struct Raw(Termios);

impl Raw {
    fn new() -> Option<Self> {
        let usual = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = usual.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(usual))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // It was there when this began; where it is gone, nobody misses it.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn draw(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Keys as they are pressed: whole characters, and the end where the input ends.
fn keys() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(16);
    // A thread of its own, which ends with the process: a read of a terminal cannot be taken back.
    std::thread::spawn(move || {
        // Room for what was cut the last time.
        let mut piece = [0; KEYS_AT_ONCE - 4];
        while let Ok(count) = std::io::stdin().lock().read(&mut piece) {
            let bytes = piece.get(..count).unwrap_or_default().to_vec();
            if count == 0 || send.blocking_send(bytes).is_err() {
                return;
            }
        }
    });
    receive
}

/// The whole characters of some bytes; what is cut stays for later, what is none is left out.
fn characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(bytes) {
            Ok(whole) => {
                text.push_str(whole);
                bytes.clear();
                return text;
            }
            Err(error) => {
                let (whole, rest) = bytes.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(whole).unwrap_or_default());
                let Some(wrong) = error.error_len() else {
                    *bytes = rest.to_vec();
                    return text;
                };
                *bytes = rest.get(wrong..).unwrap_or_default().to_vec();
            }
        }
    }
}

/// Visits a machine's console.
pub(crate) async fn run(config: Config, arguments: ConsoleArguments) -> Result<()> {
    let parts: Vec<&str> = arguments.machine.split('/').collect();
    let [namespace, project, machine] = parts.as_slice() else {
        bail!("`{}` is not NAMESPACE/PROJECT/MACHINE", arguments.machine);
    };
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if ![namespace, project, machine].into_iter().all(|part| word(part)) {
        bail!("`{}` is not NAMESPACE/PROJECT/MACHINE", arguments.machine);
    }
    let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).build()?;
    let api = arguments.api.trim_end_matches('/');
    let url = format!("{api}/api/v1/projects/{namespace}/{project}/machines/{machine}/console");
    let entry = Entry { watch: arguments.watch };
    let answer = client.post(&url).bearer_auth(token(&config)?).json(&entry).send().await;
    let answer = answer.context("the platform's API does not answer")?;
    if !answer.status().is_success() {
        return Err(problem(answer).await);
    }
    let ticket: Ticket = answer.json().await.context("the platform's API gave no ticket")?;
    let socket = dial(&client, &format!("{url}?ticket={}", ticket.ticket), &token(&config)?).await?;
    visit(socket).await
}

/// Until it is over; an end that is not one's own is an error.
async fn visit(mut socket: Socket) -> Result<()> {
    let (to_screen, from_keys) = (std::io::stdout().is_terminal(), std::io::stdin().is_terminal());
    eprintln!("Ctrl-] leaves. This visit is recorded.");
    if to_screen
        && let Ok(size) = tcgetwinsize(std::io::stdout())
        && (size.ws_row < ROWS || size.ws_col < COLUMNS)
    {
        eprintln!("your terminal is smaller than the console's {COLUMNS} columns and {ROWS} rows");
    }
    let raw = if from_keys { Raw::new() } else { None };
    if to_screen {
        // A screen of its own: what stood in the terminal comes back.
        draw("\u{1b}[?1049h\u{1b}[2J")?;
    }
    let farewell = converse(&mut socket, to_screen).await;
    if to_screen {
        draw("\u{1b}[0m\u{1b}[?25h\u{1b}[?1049l")?;
    }
    drop(raw);
    match farewell? {
        Some((Why::Left, _)) => print("you left"),
        Some((why, message)) => bail!("the visit is over ({why:?}): {}", plain(&message)),
        None => bail!("the platform's API has gone"),
    }
}

async fn converse(socket: &mut Socket, to_screen: bool) -> Result<Option<(Why, String)>> {
    let mut pressed = keys();
    let (mut held, mut leaving) = (Vec::new(), false);
    loop {
        tokio::select! {
            came = socket.next() => match came {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).context("the platform's API says what is no word of the door")? {
                    ToPerson::Entered(writes) => note(to_screen, if writes { "you are in" } else { "you are in, and watch" })?,
                    ToPerson::Screen(difference) => draw(&render(&difference))?,
                    ToPerson::Writes => note(to_screen, "your keys reach the machine now")?,
                    ToPerson::Notice(notice) => note(to_screen, &notice)?,
                    ToPerson::Left(farewell) => return Ok(Some((farewell.why, farewell.message))),
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Close(_) | Message::Frame(_)) | Err(_)) | None => return Ok(None),
            },
            keys = pressed.recv(), if !leaving => {
                leaving = keys.as_ref().is_none_or(|keys| keys.contains(&LEAVE));
                let typed = keys.unwrap_or_default();
                held.extend(typed.into_iter().take_while(|key| *key != LEAVE));
                let typed = characters(&mut held);
                if !typed.is_empty() {
                    socket.send(Message::text(serde_json::to_string(&FromPerson::Keys(typed))?)).await?;
                }
                if leaving {
                    socket.send(Message::text(serde_json::to_string(&FromPerson::Leave)?)).await?;
                }
            }
        }
    }
}

/// Something of ours: below the screen, or, where there is none, beside it.
fn note(to_screen: bool, text: &str) -> Result<()> {
    if to_screen {
        return draw(&format!(
            "\u{1b}7\u{1b}[{};1H\u{1b}[0;7m\u{1b}[K{}\u{1b}[0m\u{1b}8",
            ROWS + 1,
            plain(text)
        ));
    }
    eprintln!("{}", plain(text));
    Ok(())
}

/// Reads a recording: the plain key (base64) comes on standard input, and is nowhere else.
pub(crate) fn read(command: RecordingCommand) -> Result<()> {
    let RecordingCommand::Read { folder, head } = command;
    let mut key = String::new();
    std::io::stdin().read_to_string(&mut key)?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(key.trim());
    bytes.context("the key on standard input is no base64")?;
    let text = recording::read(&folder, &key.trim().to_owned().into(), &head.as_str().into())?;
    draw(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sent_as_whole_characters() {
        let mut held = "a出".as_bytes().to_vec();
        let last = held.pop().unwrap();
        assert_eq!(characters(&mut held), "a");
        held.push(last);
        held.extend([0xff, b'b']);
        assert_eq!((characters(&mut held), held.len()), ("出b".to_owned(), 0));
    }
}
