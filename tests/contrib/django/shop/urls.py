from __future__ import annotations

import asyncio

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

from pushcompat.contrib.django import anotify, notify, push_cursor

from .models import Plain


def add(request: HttpRequest) -> HttpResponse:
    Plain.objects.create(text="new")
    notify("chat", {"text": "new"})
    return HttpResponse("saved")


def fail(request: HttpRequest) -> HttpResponse:
    Plain.objects.create(text="new")
    notify("chat", "lost")
    raise ValueError("the view fails")


@transaction.non_atomic_requests
async def add_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    notify("chat", "from a coroutine")
    return HttpResponse("saved")


@transaction.non_atomic_requests
async def add_async_safely(request: HttpRequest) -> HttpResponse:
    await anotify("chat", "from a coroutine", mode="outbox")
    return HttpResponse("saved")


@push_cursor
def page(request: HttpRequest) -> HttpResponse:
    return render(request, "page.html")


@transaction.non_atomic_requests
@push_cursor
async def page_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.push_cursor)  # type: ignore[attr-defined]


urlpatterns = [
    path("add", add),
    path("fail", fail),
    path("add-async", add_async),
    path("add-async-safely", add_async_safely),
    path("page", page),
    path("page-async", page_async),
]
