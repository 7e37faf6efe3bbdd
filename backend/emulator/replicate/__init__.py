"""Replicate's wire protocol, as its specification and its SDKs have it.

routes       every URL                     predictions  a run as Replicate shows it
creates      a create is answered          orders       its body and headers are checked
models       the models and their input    schema       an input against its model
reads        questions and the cancel      pages        the list in pages
uploads      /v1/files                     problems     refusals as RFC 7807 bodies
signature    webhooks are signed
"""

from __future__ import annotations

from backend.emulator.kit.provider import Provider, Webhooks
from backend.emulator.replicate import predictions, problems, routes, signature, uploads

API_TOKEN = "r8_emulator"  # nosec B105 - it opens nothing but an emulator
WEBHOOK_SECRET = "whsec_cmVlbGhvb2stZW11bGF0b3Itc2VjcmV0"  # nosec B105

REPLICATE = Provider(
    name="Replicate",
    noun="Prediction",
    interrupted="Prediction interrupted; please retry (code: PA)",
    base="/v1",
    routes=routes.ROUTES,
    show=predictions.show,
    refuse=problems.refuse,
    key_of=routes.key_of,
    api_key=API_TOKEN,
    webhook_secret=WEBHOOK_SECRET,
    webhooks=Webhooks(predictions.show, signature.headers, default_events=("output", "completed")),
    has_list=True,
    upload_id=uploads.id_of,
)
