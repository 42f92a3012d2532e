//! Logins of the local platform: bearer tokens with groups. A site uses OIDC instead.

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
        Person::new("office-1@platform.example", &["dejima.dev/office"]),
        Person::new("board-1@jichi.example", &["dejima.dev/board", "dejima.dev/org/010hz0g26"]),
        Person::new("board-1@platform.example", &["dejima.dev/board", "dejima.dev/org/04ksd4g47"]),
        Person::new("provider@jichi.example", &["dejima.dev/provider-jichi", "dejima.dev/org/010hz0g26"]),
        Person::new("lead@osaka.example", &["dejima.dev/tenant-osaka", "dejima.dev/org/035t8zc32"]),
        Person::new("student@osaka.example", &["dejima.dev/tenant-osaka", "dejima.dev/org/035t8zc32"]),
        Person::new("lead@kyoto.example", &["dejima.dev/tenant-kyoto", "dejima.dev/org/02kpeqv85"]),
        Person::new("stranger@example.org", &[]),
    ]
}
