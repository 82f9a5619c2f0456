"""The page that shows the API's description: Swagger UI from files of this installation, nothing from elsewhere.

The files come with the package fastapi-offline, of which nothing else is used (decision 0009).
"""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter
from fastapi import Path as PathParameter
from starlette.responses import FileResponse, HTMLResponse, Response

from service.platform.problem import NotFound

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
KEEP_S: Final = 3600

_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
}

# Addresses are relative, so that the page works below any prefix of a proxy.
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Expunge: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="description">
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> does not.</noscript>
</div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# A file of its own: the policy lets no script into the page.
_START: Final = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#description",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def page() -> Response:
    """The page itself."""
    return HTMLResponse(_PAGE, headers=HEADERS)


@router.get("/docs/{name}")
async def asset(name: Annotated[str, PathParameter(max_length=64)]) -> Response:
    """A file that the page needs."""
    if name not in _ASSETS:
        raise NotFound
    headers = {**HEADERS, "Cache-Control": f"public, max-age={KEEP_S}"}
    if name == "start.js":
        return Response(_START, headers=headers, media_type=_ASSETS[name])
    file = Path(str(files("fastapi_offline") / "static" / name))
    return FileResponse(file, headers=headers, media_type=_ASSETS[name])
