//! The parts that stay: operator, API and hostd, each with its own narrow identity; and the first two in one process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use dejima_api::Window;
use dejima_crds::host::{Capacity, EngineKind};
use dejima_hostd::credentials::Credentials;
use dejima_hostd::door::{Consoles, Door};
use dejima_hostd::driver::{Machines, Network, Storage};
use dejima_hostd::fetch::Cache;
use dejima_hostd::kept::Kept;
use dejima_hostd::keys::VaultKeys;
use dejima_hostd::libvirt::{Libvirt, Settings};
use dejima_hostd::memory::Memory;
use dejima_hostd::network::Bridges;
use dejima_hostd::seal::Intake;
use dejima_hostd::volumes::Pool;
use dejima_hostd::{Agent, Drivers};
use dejima_operator::{Context, Site};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::client::patient;
use crate::door::HostLine;
use crate::gate::gate;
use crate::ledger::Records;
use crate::listen::Listen;

/// What the operator needs.
#[derive(Debug, Args)]
pub(crate) struct OperatorArguments {
    #[command(flatten)]
    work: Work,
    /// Where the platform's API takes records
    #[arg(long, env = "DEJIMA_API")]
    api: String,
}

/// What the operator works with, wherever it runs.
#[derive(Debug, Args)]
struct Work {
    /// Where the key server answers
    #[arg(long, env = "DEJIMA_KEYS")]
    keys: String,
    /// A file with the operator's token at the key server
    #[arg(long)]
    keys_token_file: PathBuf,
    /// What is the site's own (YAML)
    #[arg(long)]
    site: Option<PathBuf>,
}

/// What operator and API need in one process.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    work: Work,
    #[command(flatten)]
    api: ApiArguments,
    /// The kubeconfig of the operator's own identity
    #[arg(long)]
    operator_kubeconfig: PathBuf,
    /// The kubeconfig of the API's own identity
    #[arg(long)]
    api_kubeconfig: PathBuf,
}

/// What a host's agent needs.
#[derive(Debug, Args)]
pub(crate) struct HostdArguments {
    /// The name of the host
    #[arg(long, env = "DEJIMA_HOST")]
    host: String,
    /// The directory for what the host keeps
    #[arg(long, env = "DEJIMA_STATE")]
    state: PathBuf,
    /// Where the key server answers
    #[arg(long, env = "DEJIMA_KEYS")]
    keys: String,
    /// A file with the host's role id at the key server
    #[arg(long, env = "DEJIMA_ROLE_ID_FILE")]
    role_id_file: PathBuf,
    /// A file with the host's secret id at the key server
    #[arg(long, env = "DEJIMA_SECRET_ID_FILE")]
    secret_id_file: PathBuf,
    /// Where the platform's API takes records
    #[arg(long, env = "DEJIMA_API")]
    api: String,
    /// What the host does its work with
    #[arg(long, env = "DEJIMA_DRIVERS", value_enum)]
    drivers: DriverKind,
    /// The directory below which the intake roots of this host lie
    #[arg(long, env = "DEJIMA_INTAKE")]
    intake: Option<PathBuf>,
    /// The image store, a directory
    #[arg(long, env = "DEJIMA_IMAGE_STORE")]
    image_store: Option<PathBuf>,
    /// The directory for volumes; without it volumes are only remembered
    #[arg(long, env = "DEJIMA_VOLUMES")]
    volumes: Option<PathBuf>,
    /// libvirt's address
    #[arg(long, env = "DEJIMA_LIBVIRT", default_value = "qemu:///system")]
    libvirt: String,
    /// A directory in memory, for seeds and maps of machines
    #[arg(long, env = "DEJIMA_RUN", default_value = "/run/dejima")]
    run: PathBuf,
    /// Where libvirt keeps the pids of its machines
    #[arg(long, env = "DEJIMA_PIDS", default_value = "/run/libvirt/qemu")]
    pids: PathBuf,
    /// The directory for what is fetched from the image store: encrypted shards, kernels
    #[arg(long, env = "DEJIMA_CACHE")]
    cache: Option<PathBuf>,
    /// Whether the processor helps machines to run; where absent, a small machine is tried
    #[arg(long, env = "DEJIMA_ENGINE", value_enum)]
    engine: Option<MachineEngine>,
    /// The network namespace in which projects' bridges and rules are made, as /proc/1/ns/net; without it networks are only remembered
    #[arg(long, env = "DEJIMA_NETWORK_NAMESPACE")]
    network_namespace: Option<PathBuf>,
    /// After a failure, try again after so many milliseconds at first
    #[arg(long, env = "DEJIMA_RETRY_MS", default_value_t = 500)]
    retry_ms: u64,
    /// Look at everything after so many seconds even if nothing happened
    #[arg(long, env = "DEJIMA_RESYNC_SECONDS", default_value_t = 30)]
    resync_seconds: u64,
    /// Renew what the host logs in with after so many seconds
    #[arg(long, env = "DEJIMA_RENEW_SECONDS", default_value_t = 8 * 3600)]
    renew_seconds: u64,
    /// What a machine's console may show to one person, in bytes a minute
    #[arg(long, env = "DEJIMA_CONSOLE_BYTES_A_MINUTE", default_value_t = dejima_hostd::door::BYTES_A_MINUTE, value_parser = clap::value_parser!(u64).range(dejima_hostd::door::LEAST_BYTES_A_MINUTE..))]
    console_bytes_a_minute: u64,
}

/// What a host does its work with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DriverKind {
    /// Machines on libvirt and QEMU, volumes, networks: all real
    Libvirt,
    /// Drivers that only remember: for fault injection and scale; they run nothing
    Memory,
    /// None: the host seals datasets and runs no machines
    None,
}

/// What runs machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MachineEngine {
    /// The processor's help
    Kvm,
    /// Emulation
    Tcg,
}

/// The configuration of a kubeconfig file, or of the usual places.
pub(crate) async fn config(kubeconfig: Option<PathBuf>) -> Result<Config> {
    match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(&path).with_context(|| format!("cannot read the kubeconfig `{}`", path.display()))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .context("cannot use the kubeconfig")
        }
        None => Config::infer().await.context("cannot find a cluster: set KUBECONFIG"),
    }
}

/// A client for a kubeconfig file, or for the usual places.
pub(crate) async fn client(kubeconfig: Option<PathBuf>) -> Result<Client> {
    patient(config(kubeconfig).await?)
}

fn secret(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(text.trim().to_owned())
}

/// True once this process is asked to end.
fn stop() -> Result<watch::Receiver<bool>> {
    let (send, receive) = watch::channel(false);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        // Nobody listens any more where the work has ended already.
        let _ = send.send(true);
    });
    Ok(receive)
}

/// What the API needs.
#[derive(Debug, Args)]
pub(crate) struct ApiArguments {
    /// The directory of the ledger; one process holds it
    #[arg(long)]
    ledger: PathBuf,
    #[command(flatten)]
    listen: Listen,
}

/// The API before it answers: it holds the ledger and its port.
async fn open(config: Config, arguments: &ApiArguments) -> Result<(Window, TcpListener)> {
    let ledger = dejima_ledger::Ledger::open(&arguments.ledger)?;
    let window = Window::new(config, ledger).context("cannot talk to the cluster")?;
    let listener = arguments.listen.bind().await?;
    Ok((window, listener))
}

/// Runs the API.
pub(crate) async fn api(kubeconfig: Option<PathBuf>, arguments: ApiArguments) -> Result<()> {
    let (window, listener) = open(config(kubeconfig).await?, &arguments).await?;
    arguments.listen.answer(window, listener, stop()?).await
}

/// The controllers, until they are told to stop.
async fn control(config: Config, work: Work, api: &str, stop: watch::Receiver<bool>) -> Result<()> {
    let site: Site = match &work.site {
        Some(path) => serde_yaml::from_str(&secret(path)?).with_context(|| format!("cannot read the site `{}`", path.display()))?,
        None => Site::default(),
    };
    if let Err(problem) = site.check() {
        bail!("{problem}");
    }
    let context = Context {
        client: patient(config.clone())?,
        keys: Arc::new(dejima_operator::VaultKeys::new(&work.keys, &secret(&work.keys_token_file)?)?),
        recorder: Arc::new(Records::new(api, config)?),
        gate: gate(),
        site: Arc::new(site),
    };
    // Boxed: what a pass holds is large, and this is polled from several places.
    Box::pin(dejima_operator::pass::run(context, stop))
        .await
        .context("the operator ended")
}

/// Runs the controllers.
pub(crate) async fn operator(kubeconfig: Option<PathBuf>, arguments: OperatorArguments) -> Result<()> {
    control(config(kubeconfig).await?, arguments.work, &arguments.api, stop()?).await
}

/// Runs operator and API in one process. They stay two parts: each has its own identity, and the operator's records go
/// the way that they go from anywhere else, so that the ledger knows their writer by its login.
pub(crate) async fn serve(arguments: ServeArguments) -> Result<()> {
    let operators = config(Some(arguments.operator_kubeconfig)).await?;
    let (window, listener) = open(config(Some(arguments.api_kubeconfig)).await?, &arguments.api).await?;
    // With TLS the operator has a way of its own, on loopback: the certificate bears the name that others know.
    let own = if arguments.api.listen.is_tls() {
        Some(Listen::default().bind().await?)
    } else {
        None
    };
    let url = format!("http://{}", own.as_ref().unwrap_or(&listener).local_addr()?);
    let (hush, hushed) = watch::channel(false);
    let listen = arguments.api.listen;
    let mut answers = tokio::spawn(async move {
        let outside = listen.answer(window.clone(), listener, hushed.clone());
        match own {
            Some(own) => {
                let plain = Listen::default();
                tokio::try_join!(outside, plain.answer(window, own, hushed)).map(drop)
            }
            None => outside.await,
        }
    });
    tokio::select! {
        ended = control(operators, arguments.work, &url, stop()?) => {
            // The operator ends first: its last records are taken. Where the API is gone already, nobody listens.
            let _ = hush.send(true);
            answers.await.context("the API broke off")??;
            ended
        }
        ended = &mut answers => {
            ended.context("the API broke off")??;
            bail!("the API ended before the operator")
        }
    }
}

/// The image store: a directory.
fn image_store(path: &Path) -> Result<Arc<dyn ObjectStore>> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the image store `{}`", path.display()))?;
    let store = LocalFileSystem::new_with_prefix(path).context("cannot open the image store")?;
    Ok(Arc::new(store.with_fsync(true)))
}

type HostDrivers = (Arc<dyn Storage>, Arc<dyn Network>, Arc<dyn Machines>, Option<Arc<dyn Consoles>>);

/// What a host does its work with.
fn host_drivers(arguments: &HostdArguments, store: Option<Arc<dyn ObjectStore>>) -> Result<HostDrivers> {
    let (capacity, kind) = match arguments.drivers {
        DriverKind::Libvirt => {
            let (Some(store), Some(cache), Some(volumes), Some(namespace)) =
                (store, &arguments.cache, &arguments.volumes, &arguments.network_namespace)
            else {
                bail!("a host that runs machines needs --image-store, --cache, --volumes and --network-namespace");
            };
            let pool = Pool::new(volumes)?;
            let settings = Settings {
                uri: arguments.libvirt.clone(),
                run: arguments.run.clone(),
                pids: arguments.pids.clone(),
                kvm: match arguments.engine {
                    Some(engine) => engine == MachineEngine::Kvm,
                    None => dejima_hostd::libvirt::kvm_works(),
                },
            };
            let machines = Arc::new(Libvirt::new(settings, Cache::new(cache, store)?, pool.clone())?);
            return Ok((
                Arc::new(pool),
                Arc::new(Bridges::new(&arguments.state, namespace)?),
                machines.clone(),
                Some(machines),
            ));
        }
        DriverKind::Memory => (
            Capacity {
                cpus: 64,
                memory: 256 << 30,
                bytes: 4 << 40,
            },
            EngineKind::Memory,
        ),
        DriverKind::None => (Capacity::default(), EngineKind::None),
    };
    let memory = Memory::new(&arguments.state, capacity, kind)?;
    let memory = Arc::new(if arguments.network_namespace.is_some() {
        memory.beside_real_networks()
    } else {
        memory
    });
    let network: Arc<dyn Network> = match &arguments.network_namespace {
        Some(namespace) => Arc::new(Bridges::new(&arguments.state, namespace)?),
        None => memory.clone(),
    };
    let storage: Arc<dyn Storage> = match &arguments.volumes {
        Some(pool) => Arc::new(Pool::new(pool)?),
        None => memory.clone(),
    };
    Ok((storage, network, memory, None))
}

/// Runs the agent of one host.
pub(crate) async fn hostd(kubeconfig: Option<PathBuf>, arguments: HostdArguments) -> Result<()> {
    let role_id = secret(&arguments.role_id_file)?;
    let keys = Arc::new(VaultKeys::new(&arguments.keys, &role_id, &arguments.secret_id_file)?);
    let config = config(kubeconfig).await?;
    let store = arguments.image_store.as_deref().map(image_store).transpose()?;
    let (storage, network, machines, consoles) = host_drivers(&arguments, store.clone())?;
    let drivers = Drivers {
        keys: keys.clone(),
        storage,
        network,
        machines,
        recorder: Arc::new(Records::new(&arguments.api, config.clone())?),
        gate: gate(),
    };
    let intake = match (arguments.intake, store) {
        (Some(sources), Some(store)) => Some(Intake {
            sources,
            scratch: arguments.state.join("scratch"),
            store,
            put: arguments.state.join("put"),
        }),
        (None, _) => None,
        (Some(_), None) => bail!("a host that seals needs both --intake and --image-store"),
    };
    let client = patient(config.clone())?;
    let stop = stop()?;
    let credentials = Credentials {
        client: client.clone(),
        host: arguments.host.clone(),
        token_file: config.auth_info.token_file.as_ref().map(PathBuf::from),
        keys,
        every: Duration::from_secs(arguments.renew_seconds),
        gate: drivers.gate.clone(),
    };
    let credentials = tokio::spawn(dejima_hostd::credentials::keep(credentials, stop.clone()));
    let line = HostLine::new(&arguments.api, &arguments.host, config)?;
    // A host whose machines are only remembered has no consoles, hence no door.
    let door = consoles.map(|consoles| Door {
        client: client.clone(),
        host: arguments.host.clone(),
        drivers: drivers.clone(),
        consoles,
        dial: Arc::new(line),
        folder: arguments.state.join("visits"),
        bytes_a_minute: arguments.console_bytes_a_minute,
    });
    let door = door.map(|door| tokio::spawn(dejima_hostd::door::keep(door, stop.clone())));
    let agent = Agent {
        client,
        host: arguments.host,
        drivers,
        kept: Arc::new(Kept::open(&arguments.state)?),
        intake,
        retry_ms: arguments.retry_ms,
        resync_seconds: arguments.resync_seconds,
    };
    let ended = dejima_hostd::run(agent, stop).await.context("hostd ended");
    credentials.abort();
    if let Some(door) = door {
        if ended.is_err() {
            door.abort();
        } else {
            door.await.context("the door broke off")?;
        }
    }
    ended
}
