"""Every URL of the service on one page, and who answers it; what it takes and gives stands at each handler.

A handler that is not on this page is not served, and one whose own words differ from the page keeps the service from
starting.
"""

from __future__ import annotations

from backend.web.api import (
    assets,
    audit,
    clients,
    docs,
    events,
    generate,
    generation_lists,
    generations,
    health,
    keys,
    media,
    provider_webhooks,
    usage,
    webhook_deliveries,
    webhook_endpoints,
)
from backend.web.calls.operation import OPERATIONS, Handler, Operation
from backend.web.mcp import route as mcp
from backend.web.openai import errors, images, models, video_requests, videos  # noqa: F401  errors makes those of /v1 known

PAGE: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/api/v2/generations", generation_lists.list_generations),
    ("GET", "/api/v2/generations/{id}", generations.get_generation),
    ("GET", "/api/v2/images/{id}", generations.get_image),
    ("GET", "/api/v2/videos/{id}", generations.get_video),
    ("POST", "/api/v2/generations/{id}/cancel", generations.cancel_generation),
    ("POST", "/api/v2/generations/{id}/retry", generations.retry_generation),
    ("DELETE", "/api/v2/generations/{id}", generations.delete_generation),
    ("GET", "/api/v2/campaigns/{id}/generated-images", generation_lists.list_campaign_images),
    ("GET", "/api/v2/campaigns/{id}/generated-videos", generation_lists.list_campaign_videos),
    ("GET", "/api/v2/clients/{id}/generated-images", generation_lists.list_client_images),
    ("GET", "/api/v2/clients/{id}/generated-videos", generation_lists.list_client_videos),
    ("GET", "/api/v2/assets", assets.list_assets),
    ("GET", "/api/v2/assets/{id}", assets.get_asset),
    ("DELETE", "/api/v2/assets/{id}", assets.delete_asset),
    ("POST", "/api/v2/assets", assets.create_asset),
    ("GET", "/api/v2/audit", audit.list_audit),
    ("GET", "/api/v2/clients", clients.list_clients),
    ("POST", "/api/v2/clients", clients.create_client),
    ("GET", "/api/v2/clients/{id}", clients.get_client),
    ("PATCH", "/api/v2/clients/{id}", clients.change_client),
    ("DELETE", "/api/v2/clients/{id}", clients.delete_client),
    ("GET", "/api/v2/campaigns", clients.list_campaigns),
    ("POST", "/api/v2/campaigns", clients.create_campaign),
    ("GET", "/api/v2/campaigns/{id}", clients.get_campaign),
    ("PATCH", "/api/v2/campaigns/{id}", clients.change_campaign),
    ("DELETE", "/api/v2/campaigns/{id}", clients.delete_campaign),
    ("GET", "/api/v2/events", events.stream_events),
    ("GET", "/api/v2/clients/{id}/events", events.stream_client_events),
    ("GET", "/api/v2/campaigns/{id}/events", events.stream_campaign_events),
    ("GET", "/api/v2/generations/{id}/events", events.stream_generation_events),
    ("POST", "/api/v2/generate/image", generate.generate_image),
    ("POST", "/api/v2/generate/video", generate.generate_video),
    ("GET", "/api/v2/images/{id}/data", media.image_data),
    ("GET", "/api/v2/images/{id}/poster", media.image_poster),
    ("GET", "/api/v2/videos/{id}/data", media.video_data),
    ("GET", "/api/v2/videos/{id}/poster", media.video_poster),
    ("GET", "/api/v2/videos/{id}/frame/{which}", media.video_frame),
    ("GET", "/api/v2/assets/{id}/frame/{which}", media.asset_frame),
    ("GET", "/api/v2/assets/{id}/data", media.asset_data),
    ("POST", "/webhooks/{provider}/{generation_id}/{nonce}", provider_webhooks.receive_webhook),
    ("GET", "/api/v2/usage", usage.get_usage),
    ("GET", "/api/v2/webhook-deliveries", webhook_deliveries.list_webhook_deliveries),
    ("GET", "/api/v2/webhook-deliveries/{id}", webhook_deliveries.get_webhook_delivery),
    ("POST", "/api/v2/webhook-deliveries/{id}/replay", webhook_deliveries.replay_webhook_delivery),
    ("POST", "/api/v2/webhook-endpoints/{id}/test", webhook_deliveries.test_webhook_endpoint),
    ("GET", "/api/v2/webhook-endpoints", webhook_endpoints.list_webhook_endpoints),
    ("POST", "/api/v2/webhook-endpoints", webhook_endpoints.create_webhook_endpoint),
    ("GET", "/api/v2/webhook-endpoints/{id}", webhook_endpoints.get_webhook_endpoint),
    ("PATCH", "/api/v2/webhook-endpoints/{id}", webhook_endpoints.change_webhook_endpoint),
    ("DELETE", "/api/v2/webhook-endpoints/{id}", webhook_endpoints.delete_webhook_endpoint),
    ("POST", "/api/v2/webhook-endpoints/{id}/rotate", webhook_endpoints.rotate_webhook_secret),
    ("GET", "/api/v2/webhook-secret", webhook_endpoints.get_webhook_secret),
    ("POST", "/api/v2/webhook-secret/rotate", webhook_endpoints.rotate_client_secret),
    ("GET", "/api/v2/keys", keys.list_keys),
    ("POST", "/api/v2/keys", keys.create_key),
    ("DELETE", "/api/v2/keys/{id}", keys.revoke_key),
    ("POST", "/mcp", mcp.speak_mcp),
    ("POST", "/v1/images/generations", images.create_images),
    ("GET", "/v1/models", models.list_models),
    ("GET", "/v1/models/{owner}/{name}", models.retrieve_model),
    ("POST", "/v1/videos", video_requests.create_video),
    ("GET", "/v1/videos", videos.list_videos),
    ("GET", "/v1/videos/{id}", videos.retrieve_video),
    ("DELETE", "/v1/videos/{id}", videos.remove_video),
    ("GET", "/v1/videos/{id}/content", videos.download_video),
    ("GET", "/openapi.json", docs.show_openapi),
    ("GET", "/docs", docs.show_docs),
    ("GET", "/docs/{file}", docs.show_docs_file),
    ("GET", "/healthz", health.healthz),
    ("GET", "/readyz", health.readyz),
    ("GET", "/metrics", health.show_metrics),
)


def operations() -> list[Operation]:
    """What is served, in the order of the page. Raises ValueError where the page and a handler differ."""
    made = {one.handler: one for one in OPERATIONS}
    for method, path, handler in PAGE:
        if (made[handler].method, made[handler].path) != (method, path):
            raise ValueError(f"the page says {method} {path}, the handler {made[handler].method} {made[handler].path}")
    return [made[handler] for _, _, handler in PAGE]
