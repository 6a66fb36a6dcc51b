//! Asking by one hover for each place, in turns, during which the document is open.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lsp_types::request::{GotoDefinition, HoverRequest, Request as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::view::is_on_disk;
use super::{Document, Session, SessionError};
use crate::model::Position;
use crate::pyright::batch::{Answer, Extras};
use crate::pyright::protocol::{from_lsp, locations, markdown, position_parameters, uri};

/// How long one caller's locations are asked for before others that wait for the engine's view to change get their turn.
const TURN: Duration = Duration::from_millis(500);
/// The same for a text that is not on disk, which everybody else has to wait for: taking it up again costs the most.
const OVERLAY_TURN: Duration = Duration::from_secs(2);

impl Session {
    pub(super) async fn take_turns(
        &self,
        document: &Document,
        places: &[Position],
        extras: Extras,
        window: usize,
        alone: bool,
        cancelled: &CancellationToken,
    ) -> Result<(Vec<Answer>, Duration), SessionError> {
        let alone = alone || document.overlay;
        let mut answers = vec![Answer::default(); places.len()];
        let (mut next, mut engine) = (0, Duration::ZERO);
        let length = if document.overlay { OVERLAY_TURN } else { TURN };
        while next < places.len() {
            let _view = tokio::select! {
                () = cancelled.cancelled() => return Err(SessionError::Cancelled),
                () = self.condemned.cancelled() => return Err(SessionError::Disconnected),
                view = self.hold_view(alone) => view,
            };
            if !self.is_usable() {
                return Err(SessionError::Disconnected);
            }
            // Others ask about the file itself, or what imports it, as it is on disk. The view is held: if the file
            // changes from here on, who asks about the new bytes waits for this turn to end.
            if !document.overlay && !is_on_disk(document).await {
                return Err(SessionError::Outdated);
            }
            self.open(document).await?;
            let begun = Instant::now();
            let end = begun + length;
            let asked = self.turn(document, places, extras, &mut answers, &mut next, window, end, cancelled).await;
            engine += begun.elapsed();
            let closed = self.close(document).await;
            asked.and(closed)?;
        }
        tracing::debug!(
            file = %document.path.display(),
            places = places.len(),
            milliseconds = engine.as_secs_f64() * 1000.0,
            "the engine answered"
        );
        Ok((answers, engine))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one turn of the loop above, apart only to close the document always"
    )]
    async fn turn(
        &self,
        document: &Document,
        places: &[Position],
        extras: Extras,
        answers: &mut [Answer],
        next: &mut usize,
        window: usize,
        end: Instant,
        cancelled: &CancellationToken,
    ) -> Result<(), SessionError> {
        let uri = uri(&document.path);
        let first = *next;
        let mut under_way = FuturesUnordered::new();
        let mut result = Ok(());
        loop {
            while result.is_ok() && *next < places.len() && under_way.len() < window {
                if cancelled.is_cancelled() {
                    result = Err(SessionError::Cancelled);
                } else if *next > first && Instant::now() >= end {
                    break;
                } else {
                    let (index, place) = (*next, places[*next]);
                    let uri = &uri;
                    under_way.push(async move { (index, self.ask_place(uri, place, extras, cancelled).await) });
                    *next += 1;
                }
            }
            match under_way.next().await {
                Some((index, Ok(answer))) => answers[index] = answer,
                Some((_, Err(SessionError::Disconnected))) => result = Err(SessionError::DiedAsking),
                Some((_, Err(error))) => result = Err(error),
                None => return result,
            }
        }
    }

    async fn ask_place(
        &self,
        uri: &str,
        place: Position,
        extras: Extras,
        cancelled: &CancellationToken,
    ) -> Result<Answer, SessionError> {
        let parameters = position_parameters(uri, place);
        let mut answer = Answer::default();
        match self.request::<Option<lsp_types::Hover>>(HoverRequest::METHOD, &parameters, cancelled).await? {
            Ok(hover) => {
                answer.hover = hover.and_then(|hover| {
                    let range = hover.range?;
                    Some((markdown(hover).into(), from_lsp(range)))
                });
            }
            Err(()) => answer.failed = true,
        }
        if extras.definitions && answer.hover.is_some() {
            match self
                .request::<Option<lsp_types::GotoDefinitionResponse>>(GotoDefinition::METHOD, &parameters, cancelled)
                .await?
            {
                Ok(found) => {
                    answer.definitions = found.map(locations).unwrap_or_default();
                    answer.definitions.retain(|(path, _)| self.is_lasting(path));
                }
                Err(()) => answer.failed = true,
            }
        }
        Ok(answer)
    }
}
