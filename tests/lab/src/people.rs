//! Logins of the local platform: bearer tokens with groups. A site uses OIDC instead.

/// The login that may do everything.
pub const ADMIN: &str = "admin";
/// The platform's office.
pub const OFFICE: &str = "office-1@platform.example";
/// A reviewer of the provider's organisation.
pub const BOARD_JICHI: &str = "board-1@jichi.example";
/// A reviewer of the platform's organisation.
pub const BOARD_PLATFORM: &str = "board-1@platform.example";
/// The provider.
pub const PROVIDER: &str = "provider@jichi.example";
/// The lead of a project.
pub const LEAD: &str = "lead@osaka.example";
/// The lead of another tenant.
pub const OTHER_LEAD: &str = "lead@kyoto.example";
/// Somebody of the same tenant as the lead.
pub const STUDENT: &str = "student@osaka.example";

/// One login.
#[derive(Clone, Debug)]
pub struct Person {
    /// The subject.
    pub login: String,
    /// The groups.
    pub groups: Vec<String>,
}

impl Person {
    /// A login with groups.
    pub fn new(login: &str, groups: &[&str]) -> Self {
        Self {
            login: login.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    /// The bearer token: on this platform it lives on loopback alone and guards nothing of worth.
    pub fn token(&self) -> String {
        format!("lab-{}", self.login)
    }

    /// The line of the API server's token file.
    pub fn line(&self) -> String {
        format!("{},{},{},\"{}\"\n", self.token(), self.login, self.login, self.groups.join(","))
    }
}

/// The people of the story.
pub fn cast() -> Vec<Person> {
    vec![
        Person::new(OFFICE, &["dejima.dev/office"]),
        Person::new(BOARD_JICHI, &["dejima.dev/board", "dejima.dev/org/010hz0g26"]),
        Person::new(BOARD_PLATFORM, &["dejima.dev/board", "dejima.dev/org/04ksd4g47"]),
        Person::new(PROVIDER, &["dejima.dev/provider-jichi", "dejima.dev/org/010hz0g26"]),
        Person::new(LEAD, &["dejima.dev/tenant-osaka", "dejima.dev/org/035t8zc32"]),
        Person::new(STUDENT, &["dejima.dev/tenant-osaka", "dejima.dev/org/035t8zc32"]),
        Person::new(OTHER_LEAD, &["dejima.dev/tenant-kyoto", "dejima.dev/org/02kpeqv85"]),
        Person::new("stranger@example.org", &[]),
    ]
}
