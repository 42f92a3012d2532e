//! The door: people on the consoles of machines, through hosts that have dialled in.
//!
//! ```text
//! POST …/console  may he? -> ticket      GET …/console?ticket=  may he still? -> host: enter -> begun is on record -> screens
//! while it lasts: a watch on the project, Kubernetes asked again twice a second; whoever may not stay is put out
//! ```
//! A right at Kubernetes lets a person ask; a place among the effective members of the project lets him in. Cluster admins
//! have the first and not the second.

mod admitted;
mod hosts;
mod tickets;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dejima_crds::IsolatedProject;
use dejima_crds::bounded::Uid;
use dejima_crds::door::{Entry, Farewell, FromPerson, KEYS_AT_ONCE, Ticket, ToHost, ToPerson, Why};
use dejima_crds::grant::ProjectRef;
use dejima_crds::names::host_login;
use futures::{Stream, StreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

pub(crate) use self::hosts::Hosts;
use self::hosts::{Admitted, host_gone};
use self::tickets::{LIFE, Pass, Tickets};
use crate::Window;
use crate::callers::Caller;
use crate::problem::Problem;

/// How often Kubernetes is asked whether a visitor still may.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// So many questions later it is asked who he is, too.
const ASK_WHO: u32 = 10;
/// How long an answer may take; nothing is shown meanwhile.
const ANSWER: Duration = Duration::from_secs(2);
/// How long it may stay unknown whether he may.
const UNKNOWN: Duration = Duration::from_secs(5);
/// How long a visit may take to begin: a key, the record, the console.
const BEGIN: Duration = Duration::from_secs(20);
/// A person who takes nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest message: a whole screen in the loudest colours is less.
const LARGEST: usize = 512 << 10;

/// What the door knows: tickets, hosts, visits.
#[derive(Debug, Default)]
pub(crate) struct Door {
    tickets: Mutex<Tickets>,
    pub(crate) hosts: Hosts,
}

/// Which machine: `namespace`, `project`, `machine`.
type Which = Path<(String, String, String)>;

fn projects(window: &Window, namespace: &str) -> Api<IsolatedProject> {
    Api::namespaced(window.client.clone(), namespace)
}

fn refuse(farewell: Farewell) -> Problem {
    let word = match farewell.why {
        Why::NotMember => "NotMember",
        Why::NotEffective => "NotEffective",
        Why::ProjectEnds => "ProjectEnds",
        Why::MachineGone => "MachineGone",
        Why::HostGone => "HostGone",
        Why::Left | Why::NotAllowed | Why::NotRecorded | Why::Unknown | Why::Full => "NotAllowed",
    };
    let status = if matches!(farewell.why, Why::MachineGone | Why::HostGone) {
        StatusCode::CONFLICT
    } else {
        StatusCode::FORBIDDEN
    };
    Problem::new(status, word, farewell.message)
}

const NOT_ALLOWED: &str = "the console is for who has the verb create on isolatedprojects/console here";

/// Whether this caller may be let into this machine now; where it is.
async fn admit(window: &Window, caller: &Caller, which: &(String, String, String), watch: bool) -> Result<Admitted, Problem> {
    let (namespace, name, machine) = which;
    // Before anything is looked at.
    if !caller.may_enter(window, namespace, name).await? {
        return Err(Problem::refused(NOT_ALLOWED));
    }
    let found = projects(window, namespace).get_opt(name).await;
    let found = found.map_err(|error| Problem::ours("cannot look at the project", &error))?;
    if let Some(farewell) = admitted::problem(found.as_ref(), None, &caller.login) {
        return Err(refuse(farewell));
    }
    let gone = |message: &str| refuse(Farewell::new(Why::MachineGone, message));
    let project = found.ok_or_else(|| gone("there is no such project"))?;
    let machines = project.status.as_ref().map(|status| status.machines.as_slice()).unwrap_or_default();
    let host = machines
        .iter()
        .find(|known| known.name == *machine.as_str())
        .map(|known| known.host.clone());
    let host = host.ok_or_else(|| gone("the project has no machine of this name"))?;
    let host = host.ok_or_else(|| gone("the machine is on no host yet"))?.to_string();
    if !window.door.hosts.is_there(&host) {
        return Err(refuse(host_gone()));
    }
    Ok(Admitted {
        visit: Uid::from(Uuid::new_v4().to_string()),
        host,
        login: caller.login.as_str().into(),
        project: ProjectRef {
            namespace: namespace.as_str().into(),
            name: name.as_str().into(),
            uid: project.uid().unwrap_or_default().into(),
        },
        machine: machine.as_str().into(),
        watch,
    })
}

/// `POST /api/v1/projects/{namespace}/{project}/machines/{machine}/console`: a ticket.
pub(crate) async fn ticket(
    State(window): State<Window>,
    caller: Caller,
    Path(which): Which,
    entry: Result<Json<Entry>, JsonRejection>,
) -> Result<Json<Ticket>, Problem> {
    let Json(entry) = entry?;
    admit(&window, &caller, &which, entry.watch).await?;
    let ticket = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let pass = pass(&caller, &which, entry.watch);
    let issued = window
        .door
        .tickets
        .lock()
        .is_ok_and(|mut all| all.issue(ticket.clone(), pass, Instant::now()));
    if !issued {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Unavailable",
            "too many wait at the door",
        ));
    }
    Ok(Json(Ticket {
        ticket,
        seconds: LIFE.as_secs(),
    }))
}

fn pass(caller: &Caller, which: &(String, String, String), watch: bool) -> Pass {
    let (namespace, project, machine) = which.clone();
    Pass {
        login: caller.login.clone(),
        namespace,
        project,
        machine,
        watch,
    }
}

/// What a visitor brings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Brought {
    ticket: String,
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

fn upgrade(upgrade: Upgrade) -> Result<WebSocketUpgrade, Problem> {
    let upgrade = upgrade.map_err(|rejection| Problem::new(rejection.status(), "NoWebSocket", rejection.body_text()))?;
    Ok(upgrade.max_message_size(LARGEST).max_frame_size(LARGEST))
}

/// `GET /api/v1/projects/{namespace}/{project}/machines/{machine}/console?ticket=`: the visit itself.
pub(crate) async fn console(
    State(window): State<Window>,
    caller: Caller,
    Path(which): Which,
    brought: Result<Query<Brought>, QueryRejection>,
    socket: Upgrade,
) -> Result<Response, Problem> {
    let Query(brought) = brought?;
    let socket = upgrade(socket)?;
    let by = pass(&caller, &which, false);
    let redeemed = window.door.tickets.lock();
    let redeemed = redeemed.ok().and_then(|mut all| all.redeem(&brought.ticket, &by, Instant::now()));
    let Some(pass) = redeemed else {
        let why = "this ticket was used already, is too old, or is for somebody or something else: ask for a new one";
        return Err(Problem::new(StatusCode::FORBIDDEN, "NoTicket", why));
    };
    let admitted = admit(&window, &caller, &which, pass.watch).await?;
    Ok(socket.on_upgrade(move |socket| accompany(window, caller, admitted, socket)))
}

/// `GET /api/v1/hosts/{host}/door`: a host dials in; it listens to nobody.
pub(crate) async fn host(
    State(window): State<Window>,
    caller: Caller,
    Path(host): Path<String>,
    socket: Upgrade,
) -> Result<Response, Problem> {
    if host_login(&host) != *caller.login.as_str() {
        return Err(Problem::refused("only the host itself dials in under its name"));
    }
    let socket = upgrade(socket)?;
    Ok(socket.on_upgrade(move |socket| async move { window.door.hosts.serve(&host, socket).await }))
}

/// One visit, from its person's side, until it is over.
async fn accompany(window: Window, caller: Caller, admitted: Admitted, mut socket: WebSocket) {
    let farewell = match window.door.hosts.enter(&admitted) {
        Some(from) => attend(&window, &caller, &admitted, &mut socket, from).await,
        None => host_gone(),
    };
    window.door.hosts.forget(&admitted.visit);
    let leave = ToHost::Leave {
        visit: admitted.visit.clone(),
        farewell: farewell.clone(),
    };
    // A host that is not there has ended it already.
    window.door.hosts.tell(&admitted.host, leave);
    tracing::info!(visit = %admitted.visit, login = %admitted.login, why = ?farewell.why, "a visit is over");
    if say(&mut socket, &ToPerson::Left(farewell)).await {
        // He has heard it, or is gone.
        let _ = timeout(PATIENCE, socket.send(Message::Close(None))).await;
    }
}

async fn say(socket: &mut WebSocket, what: &ToPerson) -> bool {
    let Ok(text) = serde_json::to_string(what) else { return false };
    matches!(timeout(PATIENCE, socket.send(Message::Text(text.into()))).await, Ok(Ok(())))
}

fn left() -> Farewell {
    Farewell::new(Why::Left, "you left")
}

/// What the watch says of the project: the object, or that it is not there.
fn watched(window: &Window, admitted: &Admitted) -> impl Stream<Item = watcher::Result<Option<IsolatedProject>>> + Send + use<> {
    let api = projects(window, admitted.project.namespace.as_str());
    watcher::watch_object(api, admitted.project.name.as_str()).default_backoff()
}

async fn attend(
    window: &Window,
    caller: &Caller,
    admitted: &Admitted,
    socket: &mut WebSocket,
    mut from: mpsc::Receiver<ToPerson>,
) -> Farewell {
    let mut project = std::pin::pin!(watched(window, admitted));
    let mut again = interval(ASK_AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (begun, mut entered, mut asked, mut certain) = (Instant::now(), false, 0u32, Instant::now());
    loop {
        // What takes a person out comes first.
        tokio::select! {
            biased;
            seen = project.next() => match seen {
                Some(Ok(seen)) => {
                    let problem = admitted::problem(seen.as_ref(), Some(admitted.project.uid.as_str()), &caller.login);
                    // Somebody who was let in knows the project.
                    let ends = || Farewell::new(Why::ProjectEnds, "the project is gone");
                    if let Some(farewell) = problem {
                        return if seen.is_none() { ends() } else { farewell };
                    }
                }
                Some(Err(error)) => tracing::debug!(error = %error, "the watch on a project was interrupted"),
                None => return Farewell::new(Why::Unknown, "nobody can tell any more whether you may stay"),
            },
            _ = again.tick() => {
                asked += 1;
                match timeout(ANSWER, still(window, caller, admitted, asked.is_multiple_of(ASK_WHO))).await {
                    Ok(Ok(None)) => certain = Instant::now(),
                    Ok(Ok(Some(farewell))) => return farewell,
                    Ok(Err(_)) | Err(_) if certain.elapsed() < UNKNOWN => {}
                    Ok(Err(_)) | Err(_) => return Farewell::new(Why::Unknown, "nobody can tell any more whether you may stay"),
                }
                if !entered && begun.elapsed() > BEGIN {
                    return Farewell::new(Why::HostGone, "the host of this machine does not answer");
                }
            }
            said = from.recv() => match said {
                Some(ToPerson::Left(farewell)) => return farewell,
                Some(what) => {
                    entered |= matches!(what, ToPerson::Entered(_));
                    if !say(socket, &what).await {
                        return left();
                    }
                }
                None => return host_gone(),
            },
            heard = socket.recv() => match heard {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(FromPerson::Keys(keys)) if keys.len() <= KEYS_AT_ONCE => {
                        let keys = ToHost::Keys { visit: admitted.visit.clone(), keys };
                        if !window.door.hosts.tell(&admitted.host, keys) {
                            return host_gone();
                        }
                    }
                    Ok(FromPerson::Leave) => return left(),
                    Ok(FromPerson::Keys(_)) | Err(_) => return Farewell::new(Why::Left, "your side said what is no word of the door"),
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => return left(),
            },
        }
    }
}

/// Whether Kubernetes still lets a visitor; and, asked more seldom, still knows him.
async fn still(window: &Window, caller: &Caller, admitted: &Admitted, who: bool) -> Result<Option<Farewell>, Problem> {
    let not = |message: &str| Ok(Some(Farewell::new(Why::NotAllowed, message)));
    if who && !caller.is_still_known(window).await? {
        return not("your login is not known any more: log in again");
    }
    if caller
        .may_enter(window, admitted.project.namespace.as_str(), admitted.project.name.as_str())
        .await?
    {
        return Ok(None);
    }
    not(NOT_ALLOWED)
}
