//! The certificate of a run of which nothing was measured, because nothing could be.

use quiet::{
    Certificate, Conditions, Evidence, Hardware, JobClass, JobOutcome, Release, Settings, TickMode,
};

use super::{Certifier, keep, platform_of, raw_ns, run};
use crate::engine::output::Written;
use crate::runs::{Ended, Made};
use crate::unproven::Unproven;

impl Certifier {
    /// What is known of a container that has ended: how, and what it wrote. Judged, signed and kept as
    /// every certificate; the text is `None` if it could not be kept.
    pub(crate) async fn certify_unproven(
        &self,
        host: &Unproven,
        made: &Made,
        class: JobClass,
        ended: &Ended,
        written: &Written,
    ) -> Result<(Certificate, Option<String>), String> {
        let client = &self.parts.client;
        let about = client.about(&made.container).await;
        let about = about.map_err(|error| crate::chain(&error))?;
        let pinned = host.unpinned().is_none();
        let report = self.parts.report();
        let evidence = Evidence {
            run_id: format!("{}-{}", run::short(&made.container), raw_ns()),
            container_id: made.container.clone(),
            image: about.image,
            argv: about.argv,
            class,
            tick_mode: TickMode::Tick,
            platform: platform_of(&*self.parts.tree, report.as_ref()),
            // none is its own if the engine cannot keep it there
            job_cpus: if pinned {
                made.cpus.clone()
            } else {
                cpulist::CpuSet::new()
            },
            housekeeping_cpus: cpulist::CpuSet::new(),
            before: Conditions::default(),
            after: Conditions::default(),
            windows: Vec::new(),
            hardware: Hardware::unobservable("nothing is measured on this host"),
            interruptions: None,
            actions_in_window: Vec::new(),
            troubles: host.reasons(),
            job: JobOutcome {
                exit_code: ended.exit_code,
                signal: None,
                oom_killed: client.oom_killed(&made.container).await,
                timed_out: ended.timed_out,
                gate: Release::default(),
                ended_ns: None,
                settings: Settings::default(),
                output: written.output.clone(),
            },
        };
        let certificate = Certificate::new(evidence);
        let kept = keep(&self.parts, &self.store, &made.container, &certificate);
        let text = kept.then(|| self.store.read(&made.container)).flatten();
        Ok((certificate, text))
    }
}
